#include "decode/params.hpp"

#include <cmath>

#include "base/fail.hpp"
#include "base/saved_count.hpp"

namespace keyseek {
namespace {

/// Where queries are shifted, `RopeParams::validate` asks more.
void require_saveable_rope(const RopeParams& rope) {
  require(std::isfinite(rope.theta), "rope.theta is {}, must be finite", rope.theta);
  require_saveable("rope.rotary_dim", rope.rotary_dim);
  require(rope.layout <= RopeLayout::interleaved, "rope.layout is {}, which is none",
          static_cast<int>(rope.layout));
  for (const double frequency : rope.frequencies)
    require(std::isfinite(frequency), "rope.frequencies hold {}, must be finite", frequency);
}

}  // namespace

void require_saveable(const DecodeParams& params) {
  require_saveable("sink", params.sink);
  require_saveable("window", params.window);
  require_saveable("horizon", params.horizon);
  require_saveable("pinned", params.pinned);
  require_saveable("least_indexed", params.least_indexed);
  require_saveable("observed", params.observed);
  require_saveable("held_out", params.held_out);
  require_saveable("least_k", params.least_k);
  require_saveable("max_k", params.max_k);
  require(params.rule <= Rule::mass, "rule is {}, which is none", static_cast<int>(params.rule));
  require_saveable_rope(params.rope);
  if (!params.given) return;
  require(params.given->retriever <= Retriever::custom, "given.retriever is {}, which is none",
          static_cast<int>(params.given->retriever));
  require_saveable("given.stop.k", params.given->stop.k);
  require_saveable("given.stop.least", params.given->stop.least);
}

void require_stop_rule(const StopRule& stop, std::string_view name) {
  require(stop.rule <= Rule::mass, "{}.rule is {}, which is none", name,
          static_cast<int>(stop.rule));
  require(std::isfinite(stop.limit), "{}.limit is {}, must be finite", name, stop.limit);
  require(stop.rule != Rule::dipr || stop.limit >= 0, "{}.limit is {}, must be at least 0 for DIPR",
          name, stop.limit);
  require(stop.rule != Rule::mass || (stop.limit > 0 && stop.limit <= 1),
          "{}.limit is {}, must be in (0, 1] for a share of mass", name, stop.limit);
}

}  // namespace keyseek
