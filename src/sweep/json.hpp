/// JSON as rows and reports hold it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "keyseek/search.hpp"

namespace keyseek::sweep {

/// Keeps fields in the order they were written in.
using Json = nlohmann::ordered_json;

/// On one line or indented; bytes that are no UTF-8 (of a file's name) are replaced.
[[nodiscard]] inline std::string dump(const Json& value, int indent = -1) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

[[nodiscard]] inline Json to_json(const Dials& dials) {
  return {{"probes", dials.probes},
          {"lists", dials.lists},
          {"expand", dials.expand},
          {"pool", dials.pool},
          {"novel", dials.novel}};
}

}  // namespace keyseek::sweep
