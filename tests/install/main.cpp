/// Builds and searches an index with an installed keyseek; fails unless the answer is right.
#include <keyseek/keyseek.hpp>

#include <iostream>

int main() {
  keyseek::Matrix<float> keys(3, 2);
  keys.row(0)[0] = 1.0F;
  keys.row(1)[1] = 2.0F;
  keys.row(2)[0] = 3.0F;
  keyseek::Matrix<float> query(1, 2);
  query.row(0)[0] = 1.0F;
  query.row(0)[1] = 1.0F;

  const auto index =
      keyseek::Index::build(keyseek::IndexKind::flat, keyseek::AnyMatrixView::of(keys.view()));
  keyseek::SearchScratch scratch;
  keyseek::Hits hits;
  index.search(query, {.k = 2}, scratch, hits);

  const bool right = hits.count[0] == 2 && hits.ids[0] == 2 && hits.ids[1] == 1 &&
                     hits.scores[0] == 3.0F && hits.scores[1] == 2.0F;
  std::cout << "keyseek " << keyseek::kVersion << (right ? " answers\n" : " answers wrongly\n");
  return right ? 0 : 1;
}
