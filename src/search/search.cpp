/// Parameters of a search are checked here; its memory is made here.
#include "keyseek/search.hpp"

#include <cmath>

#include "base/fail.hpp"
#include "search/scratch.hpp"

namespace keyseek {

SearchScratch::SearchScratch() : state_(std::make_unique<State>()) {}
SearchScratch::~SearchScratch() = default;
SearchScratch::SearchScratch(SearchScratch&&) noexcept = default;
SearchScratch& SearchScratch::operator=(SearchScratch&&) noexcept = default;

void ProjectionSearchParams::validate() const {
  require(target_recall > 0.0 && target_recall <= 1.0, "target_recall is {}, must be in (0, 1]",
          target_recall);
  require(max_scanned >= 1, "max_scanned is 0");
  require(!dials || dials->lists > 0 || dials->expand > 0,
          "dials have neither lists nor expansions");
  require(!dials || dials->lists == 0 || dials->probes > 0,
          "dials.lists is {}, but dials.probes is 0", dials->lists);
}

void SearchParams::validate() const {
  require(k >= 1, "k is 0");
  require(!beta || (std::isfinite(*beta) && *beta >= 0.0F), "beta is {}, must be finite and >= 0",
          *beta);
  if (projection) projection->validate();
}

}  // namespace keyseek
