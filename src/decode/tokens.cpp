#include "decode/tokens.hpp"

#include <algorithm>

namespace keyseek {

void Tokens::attend(MatrixView<float> queries, std::size_t first, std::size_t last, float scale,
                    AttendScratch& scratch, Partial& part, Partial& into) const {
  std::size_t begin = 0;
  for (const Piece* piece : {&sink, &indexed, &recent}) {
    const std::size_t end = begin + piece->keys.rows;
    const std::size_t from = std::max(first, begin), to = std::min(last, end);
    if (from < to) {
      keyseek::attend(queries, piece->keys.slice(from - begin, to - from),
                      {piece->values.slice(from - begin, to - from)}, scale, scratch, part);
      merge(part, into);
    }
    begin = end;
  }
}

}  // namespace keyseek
