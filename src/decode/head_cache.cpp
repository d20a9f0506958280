// The public face of a head: checks what comes in, and that one thread at a time is at work.
#include <algorithm>
#include <utility>

#include "base/fail.hpp"
#include "decode/head_state.hpp"
#include "decode/refresh_task.hpp"
#include "index/index_file.hpp"
#include "keyseek/decode_options.hpp"
#include "score/kernels.hpp"
#include "score/range.hpp"

namespace keyseek {
namespace {

constexpr const char* kKind = "head";

void require_prompt(AnyMatrixView keys, AnyMatrixView values, MatrixView<float> queries,
                    std::size_t group, const DecodeParams& params) {
  const std::size_t n = keys.rows;
  require(n > 0, "keys is empty");
  require(keys.cols > 0 && values.cols > 0, "keys have dimension {}, values {}", keys.cols,
          values.cols);
  require(values.rows == n, "values has {} rows, keys has {}", values.rows, n);
  require(keys.dtype != Dtype::i8 && values.dtype != Dtype::i8,
          "keys are {} and values {}: int8 has no scale here", to_string(keys.dtype),
          to_string(values.dtype));
  require(group >= 1 && group <= kMaxGroup, "group is {}, must be in [1, {}]", group, kMaxGroup);
  require(params.null_logits.empty() || params.null_logits.size() == group,
          "null_logits has {} numbers, must have one per query head: group is {}",
          params.null_logits.size(), group);
  require(queries.rows % group == 0, "queries has {} rows, no multiple of group = {}", queries.rows,
          group);
  require(queries.rows / group <= n, "queries are of {} positions, there are {} tokens",
          queries.rows / group, n);
  require(params.pinned == 0 || !queries.empty(),
          "pinned is {}, but there are no queries to choose tokens by", params.pinned);
  require(queries.empty() || queries.cols == keys.cols, "queries have dimension {}, keys have {}",
          queries.cols, keys.cols);
  require_dimension(keys.cols);
  require_range(keys, "keys");
  require_range(values, "values", kLargestValue);
  if (!queries.empty()) require_finite(AnyMatrixView::of(queries), "queries");
  if (params.shift) params.rope.validate(keys.cols);
}

void require_alike(const RowPages& keys, const RowPages& values) {
  keys.validate("keys");
  values.validate("values");
  require(keys.pages == values.pages && keys.page_rows == values.page_rows,
          "keys have {} pages of {} rows, values {} of {}", keys.pages, keys.page_rows,
          values.pages, values.page_rows);
  // A token's key and value then have the same slot.
  const std::size_t of_key = keys.page_stride / keys.row_stride,
                    of_value = values.page_stride / values.row_stride;
  require(keys.pages == 1 || of_key == of_value,
          "a page of keys has room for {} rows, one of values for {}: lay them out alike", of_key,
          of_value);
}

AnyMatrix borrowed_rows(const RowPages& pages, const SharedArray<Id>& slots) {
  return AnyMatrix::borrowed({pages.memory, pages.owner}, pages.dtype, slots, pages.cols,
                             pages.row_stride);
}

}  // namespace

HeadCache::HeadCache() noexcept = default;
HeadCache::HeadCache(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
HeadCache::HeadCache(const HeadCache& other) {
  if (!other.state_) return;
  other.state_->occupancy.require_idle();
  state_ = std::make_unique<State>(*other.state_);
}
HeadCache::HeadCache(HeadCache&& other) noexcept = default;
HeadCache& HeadCache::operator=(const HeadCache& other) {
  HeadCache copy(other);
  state_ = std::move(copy.state_);
  return *this;
}
HeadCache& HeadCache::operator=(HeadCache&& other) noexcept = default;
HeadCache::~HeadCache() = default;

HeadCache HeadCache::prefill(AnyMatrixView keys, AnyMatrixView values, MatrixView<float> queries,
                             std::size_t group, const DecodeParams& params, const Execution& run) {
  params.validate();
  run.validate();
  require_prompt(keys, values, queries, group, params);
  // Looked at where they can be, so that what stays is the only copy.
  const auto looked_at = [](AnyMatrixView rows) {
    return rows.slots == nullptr ? AnyMatrix::look_at(rows) : AnyMatrix::copy_of(rows);
  };
  return of_prompt(std::make_unique<State>(), looked_at(keys), looked_at(values), queries, group,
                   params, run);
}

HeadCache HeadCache::borrow(const RowPages& keys, const RowPages& values, std::span<const Id> pages,
                            std::size_t tokens, MatrixView<float> queries, std::size_t group,
                            const DecodeParams& params, const Execution& run) {
  params.validate();
  run.validate();
  require_alike(keys, values);
  auto state = std::make_unique<State>();
  state->pages = PageTable(keys, pages);
  state->pages->require_room(tokens);
  const SharedArray<Id> slots(state->pages->slots(0, tokens));
  const AnyMatrix key_rows = borrowed_rows(keys, slots), value_rows = borrowed_rows(values, slots);
  require_prompt(key_rows.view(), value_rows.view(), queries, group, params);
  return of_prompt(std::move(state), key_rows, value_rows, queries, group, params, run);
}

HeadCache HeadCache::of_prompt(std::unique_ptr<State> state, const AnyMatrix& keys,
                               const AnyMatrix& values, MatrixView<float> queries,
                               std::size_t group, const DecodeParams& params,
                               const Execution& run) {
  state->params = params;
  state->group = group;
  state->dim = keys.cols();
  state->value_dim = values.cols();
  const std::size_t seen = std::min(queries.rows, params.plan_positions(keys.rows()) * group);
  state->take_prompt(keys, values, queries.slice(queries.rows - seen, seen), run);
  return HeadCache(std::move(state));
}

void HeadCache::refresh(const Execution& run) {
  State& self = State::of(*this);
  const Occupied occupied(self.occupancy);
  run.validate();
  self.adopt_refresh();
  self.refresh(run);
}

Refresh HeadCache::begin_refresh() {
  State& self = State::of(*this);
  const Occupied occupied(self.occupancy);
  self.begin_refresh();
  return Refresh(self.pending);
}

void HeadCache::adopt_refresh() {
  State& self = State::of(*this);
  const Occupied occupied(self.occupancy);
  self.adopt_refresh();
}

bool HeadCache::refreshing() const noexcept { return State::seen(*this).pending != nullptr; }

void Refresh::run(const Execution& run) const {
  run.validate();
  if (task_) task_->run(run);
}

bool Refresh::done() const noexcept { return task_ && task_->done(); }

void HeadCache::append(const float* key, const float* value) {
  State& self = State::of(*this);
  const Occupied occupied(self.occupancy);
  self.take_token(key, value);
}

void HeadCache::append(MatrixView<float> keys, MatrixView<float> values,
                       MatrixView<float> queries) {
  State& self = State::of(*this);
  const Occupied occupied(self.occupancy);
  self.require_tokens(keys, values);
  if (!queries.empty()) self.require_turn(queries, keys.rows);
  self.take_tokens(keys, values, queries);
}

void HeadCache::announce(std::size_t tokens, std::span<const Id> pages, MatrixView<float> queries) {
  State& self = State::of(*this);
  const Occupied occupied(self.occupancy);
  if (!queries.empty()) self.require_turn(queries, tokens);
  self.take_written(tokens, pages, queries);
}

void HeadCache::attend(MatrixView<float> queries, DecodeScratch& scratch, float* out) {
  State& self = State::of(*this);
  const Occupied occupied(self.occupancy);
  self.attend_all(queries, DecodeScratch::State::of(scratch), out);
}

void HeadCache::attend(AnyMatrixView queries, DecodeScratch& scratch, float* out) {
  attend(DecodeScratch::State::of(scratch).widened(queries), scratch, out);
}

void HeadCache::step(MatrixView<float> queries, const float* key, const float* value,
                     DecodeScratch& scratch, float* out) {
  State& self = State::of(*this);
  const Occupied occupied(self.occupancy);
  self.step_over_all(queries, key, value, DecodeScratch::State::of(scratch), out);
}

void HeadCache::step_announced(AnyMatrixView queries, std::span<const Id> pages,
                               DecodeScratch& scratch, float* out) {
  State& self = State::of(*this);
  const Occupied occupied(self.occupancy);
  DecodeScratch::State& work = DecodeScratch::State::of(scratch);
  self.step_over_written(work.widened(queries), pages, work, out);
}

void HeadCache::extend_announced(AnyMatrixView queries, std::span<const Id> pages,
                                 DecodeScratch& scratch, float* out) {
  State& self = State::of(*this);
  const Occupied occupied(self.occupancy);
  DecodeScratch::State& work = DecodeScratch::State::of(scratch);
  self.extend_over_written(work.widened(queries), pages, work, out);
}

void HeadCache::extend(MatrixView<float> queries, MatrixView<float> keys, MatrixView<float> values,
                       DecodeScratch& scratch, float* out) {
  State& self = State::of(*this);
  const Occupied occupied(self.occupancy);
  self.require_tokens(keys, values);
  self.require_turn(queries, keys.rows);
  self.extend(queries, keys, values, DecodeScratch::State::of(scratch), out);
}

void HeadCache::truncate(std::size_t tokens) {
  State& self = State::of(*this);
  const Occupied occupied(self.occupancy);
  self.keep(self.cut_to(tokens));
}

void HeadCache::copy_tokens(void* keys, void* values) const {
  const State& self = State::of(*this);
  self.occupancy.require_idle();
  self.copy_tokens(keys, values);
}

void HeadCache::step_beside_static(MatrixView<float> queries, const float* key, const float* value,
                                   DecodeScratch& scratch, float* out, float* lse) {
  State& self = State::of(*this);
  const Occupied occupied(self.occupancy);
  self.step_over_rest(queries, key, value, DecodeScratch::State::of(scratch), out, lse);
}

StaticPart HeadCache::static_part() const { return State::of(*this).static_part(); }

void HeadCache::retrieve(MatrixView<float> queries, std::size_t k, DecodeScratch& scratch,
                         Hits& hits) const {
  State::of(*this).retrieve(queries, k, DecodeScratch::State::of(scratch), hits);
}

void HeadCache::save(const std::filesystem::path& path) const {
  const State& self = State::of(*this);
  const std::string options = to_text(self.params);
  IndexFileWriter file(kKind);
  self.write(file, options);
  file.save(path);
}

std::vector<std::byte> HeadCache::to_bytes() const {
  const State& self = State::of(*this);
  const std::string options = to_text(self.params);
  IndexFileWriter file(kKind);
  self.write(file, options);
  return file.bytes();
}

HeadCache HeadCache::load(const std::filesystem::path& path) {
  return State::read(ContainerReader::load(path, kKind));
}
HeadCache HeadCache::map(const std::filesystem::path& path) {
  return State::read(ContainerReader::map(path, kKind));
}
HeadCache HeadCache::from_bytes(std::span<const std::byte> bytes) {
  return State::read(ContainerReader::copy_of(bytes, kKind));
}

const HeadPlan& HeadCache::plan() const noexcept { return State::seen(*this).plan; }
const StepStats& HeadCache::stats() const noexcept { return State::seen(*this).last.stats; }
const DecodeParams& HeadCache::params() const noexcept { return State::seen(*this).params; }
std::size_t HeadCache::tokens() const noexcept { return State::seen(*this).tokens(); }
std::size_t HeadCache::indexed() const noexcept { return State::seen(*this).indexed(); }
const std::vector<std::size_t>& HeadCache::pinned() const noexcept {
  return State::seen(*this).pinned;
}
std::size_t HeadCache::group() const noexcept { return State::seen(*this).group; }
std::size_t HeadCache::dim() const noexcept { return State::seen(*this).dim; }
std::size_t HeadCache::value_dim() const noexcept { return State::seen(*this).value_dim; }
Dtype HeadCache::key_dtype() const noexcept { return State::seen(*this).recent_keys.dtype(); }
Dtype HeadCache::value_dtype() const noexcept { return State::seen(*this).recent_values.dtype(); }
const Tail& HeadCache::tail() const noexcept { return State::seen(*this).tail; }
std::size_t HeadCache::bytes() const { return State::seen(*this).bytes(); }
std::size_t HeadCache::full_bytes() const noexcept { return State::seen(*this).full_bytes(); }

}  // namespace keyseek
