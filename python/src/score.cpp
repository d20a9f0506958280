/// The instruction sets that this processor has and uses.
#include "keyseek/score.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "bindings.hpp"

namespace keyseek::python {

void bind_score(nb::module_& m) {
  m.def(
      "available_isas",
      [] {
        std::vector<std::string> names;
        for (const Isa isa : available_isas()) names.emplace_back(to_string(isa));
        return names;
      },
      "Instruction sets compiled in that this CPU can run, slowest first.");
  m.def(
      "active_isa", [] { return std::string(to_string(active_isa())); },
      "The instruction set in use; the environment variable KEYSEEK_ISA forces another available "
      "one.");
}

}  // namespace keyseek::python
