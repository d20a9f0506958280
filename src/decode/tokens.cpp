// Where a position is among the pieces of a head, and attention over any run of rows.
#include "decode/tokens.hpp"

#include <algorithm>

namespace keyseek {

std::size_t Tokens::row_of(std::size_t position) const {
  const auto before = std::lower_bound(pinned.begin(), pinned.end(), position) - pinned.begin();
  return position + pinned.size() - static_cast<std::size_t>(before);
}

std::vector<Tokens::Run> Tokens::by_position() const {
  std::vector<Run> runs;
  const std::size_t first = sink.keys.rows - pinned.size();
  std::size_t position = first, row = 0;
  runs.push_back({&sink, 0, first});
  for (std::size_t i = 0; i < pinned.size(); ++i) {
    const std::size_t between = pinned[i] - position;
    runs.push_back({&indexed, row, between});
    runs.push_back({&sink, first + i, 1});
    row += between;
    position = pinned[i] + 1;
  }
  runs.push_back({&indexed, row, indexed.keys.rows - row});
  runs.push_back({&recent, 0, recent.keys.rows});
  return runs;
}

void Tokens::attend(MatrixView<float> queries, std::size_t first, std::size_t last, Logits logits,
                    AttendScratch& scratch, Partial& part, Partial& into) const {
  std::size_t begin = 0;
  for (const Piece* piece : {&sink, &indexed, &recent}) {
    const std::size_t end = begin + piece->keys.rows;
    const std::size_t from = std::max(first, begin), to = std::min(last, end);
    if (from < to) {
      keyseek::attend(queries, piece->keys.slice(from - begin, to - from),
                      piece->values.slice(from - begin, to - from), logits, scratch, part);
      merge(part, into);
    }
    begin = end;
  }
}

std::size_t position_of(std::size_t row, std::size_t sink, std::span<const std::size_t> pinned) {
  std::size_t position = sink + row;
  for (const std::size_t other : pinned) position += other <= position ? 1 : 0;
  return position;
}

}  // namespace keyseek
