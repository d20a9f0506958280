// An engine that keeps the keys and values of several requests in one pool of pages, and retrieves
// from there: keyseek reads the pages in place, and makes only what a search needs. One KV head.
//
//     paged_cache CAPTURE.attn.h5 LAYER
#include <keyseek/keyseek.hpp>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace {

using keyseek::HeadCache;
using keyseek::Id;

/// Memory [pages, page_rows, heads, d] for keys, and as much for values, as vLLM lays it out.
class Pool {
 public:
  static constexpr std::size_t kPageRows = 64;

  Pool(std::size_t pages, const keyseek::io::CapturedHead& like)
      : keys_(made(pages, like.keys.view())), values_(made(pages, like.values.view())) {
    for (std::size_t i = pages; i > 0; --i) free_.push_back(static_cast<Id>(i - 1));
  }

  [[nodiscard]] const keyseek::RowPages& keys() const { return keys_.pages; }
  [[nodiscard]] const keyseek::RowPages& values() const { return values_.pages; }
  [[nodiscard]] std::size_t bytes() const { return keys_.bytes->size() + values_.bytes->size(); }

  Id take() {
    if (free_.empty()) throw keyseek::Error(keyseek::ErrorCode::invalid_argument, "pool is full");
    const Id page = free_.back();
    free_.pop_back();
    return page;
  }
  void give_back(std::span<const Id> pages) {
    free_.insert(free_.end(), pages.begin(), pages.end());
  }
  void write(Id page, std::size_t row, const void* key, const void* value) {
    put(keys_, page, row, key);
    put(values_, page, row, value);
  }

 private:
  struct Part {
    std::shared_ptr<std::vector<std::byte>> bytes;
    keyseek::RowPages pages;
  };
  static Part made(std::size_t pages, keyseek::AnyMatrixView like) {
    const auto bytes =
        std::make_shared<std::vector<std::byte>>(pages * kPageRows * like.row_bytes());
    const keyseek::RowPages::Block block{.page_rows = kPageRows, .heads = 1, .cols = like.cols};
    return {bytes, keyseek::RowPages::of_blocks(*bytes, like.dtype, block, 0, bytes)};
  }
  static void put(Part& part, Id page, std::size_t row, const void* from) {
    const keyseek::RowPages& at = part.pages;
    const std::size_t size = keyseek::size_of(at.dtype);
    const std::size_t element = page * at.page_stride + row * at.row_stride;
    std::memcpy(part.bytes->data() + element * size, from, at.cols * size);
  }

  Part keys_, values_;
  std::vector<Id> free_;
};

/// Requests come, decode and go; their pages are used again. What they read and write is captured.
class Engine {
 public:
  explicit Engine(const keyseek::io::CapturedHead& model) : model_(model), pool_(160, model) {
    params_.scale = static_cast<float>(model.scale);
    params_.rope = model.rope;
  }

  /// Reads a prompt, the first `tokens` of the capture.
  void submit(int id, std::size_t tokens) {
    Request request;
    for (std::size_t i = 0; i < tokens; ++i) (void)write(request, i);
    const std::size_t asked = params_.plan_positions(tokens);
    const auto queries = keyseek::io::step_queries(model_, tokens - asked, tokens);
    request.cache = HeadCache::borrow(pool_.keys(), pool_.values(), request.pages, tokens, queries,
                                      model_.queries.size(), params_);
    requests_.insert_or_assign(id, std::move(request));
  }
  /// Decodes the next token; returns how far its attention is from full attention, relatively.
  double step(int id) {
    Request& request = at(id);
    const std::size_t token = request.cache.tokens(), group = model_.queries.size();
    const std::vector<Id> fresh = write(request, token);  // the model's key and value
    const auto queries = keyseek::io::step_queries(model_, token, token + 1);
    keyseek::Matrix<float> out(group, request.cache.value_dim());
    request.cache.step_announced(keyseek::AnyMatrixView::of(queries.view()), fresh, scratch_,
                                 out.data());
    keyseek::AttendScratch room;
    keyseek::Partial full;
    keyseek::attend(queries, model_.keys.view().slice(0, token + 1),
                    {model_.values.view().slice(0, token + 1)}, params_.logits(), room, full);
    return keyseek::relative_error(out.row(0), full.out.row(0), out.cols());
  }
  /// The cache goes first: nobody reads pages that somebody else may write.
  void drop(int id) {
    Request& request = at(id);
    request.cache = HeadCache();
    pool_.give_back(request.pages);
    requests_.erase(id);
  }
  [[nodiscard]] const HeadCache& cache(int id) { return at(id).cache; }
  [[nodiscard]] std::size_t pool_bytes() const { return pool_.bytes(); }

 private:
  struct Request {
    std::vector<Id> pages;
    HeadCache cache;
  };

  Request& at(int id) {
    const auto found = requests_.find(id);
    if (found == requests_.end())
      throw keyseek::Error(keyseek::ErrorCode::invalid_argument,
                           "request " + std::to_string(id) + " is not there: submit it first");
    return found->second;
  }
  /// Returns the page that was taken for it, if any.
  std::vector<Id> write(Request& request, std::size_t token) {
    std::vector<Id> fresh;
    if (token == request.pages.size() * Pool::kPageRows) fresh.push_back(pool_.take());
    request.pages.insert(request.pages.end(), fresh.begin(), fresh.end());
    pool_.write(request.pages[token / Pool::kPageRows], token % Pool::kPageRows,
                model_.keys.view().row(token), model_.values.view().row(token));
    return fresh;
  }

  const keyseek::io::CapturedHead& model_;
  Pool pool_;
  keyseek::DecodeParams params_;
  keyseek::DecodeScratch scratch_;
  std::map<int, Request> requests_;
};

void run(Engine& engine, const std::vector<int>& ids, std::size_t steps) {
  for (const int id : ids) {
    double error = 0;
    for (std::size_t i = 0; i < steps; ++i) error += engine.step(id);
    const HeadCache& cache = engine.cache(id);
    std::printf(
        "request %d: %zu tokens, %zu attended in the last step; mean error %.3f; %zu KiB of its "
        "own beside %zu KiB in pages\n",
        id, cache.tokens(), cache.stats().exact + cache.stats().retrieved,
        error / static_cast<double>(steps), cache.bytes() / 1024,
        cache.full_bytes() / cache.indexed() * cache.tokens() / 1024);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: paged_cache CAPTURE.attn.h5 LAYER\n", stderr);
    return 2;
  }
  try {
    const auto layer = static_cast<std::size_t>(std::atoi(argv[2]));
    const auto model = keyseek::io::read_capture(argv[1], layer, 0);
    Engine engine(model);
    engine.submit(1, 4000);
    engine.submit(2, 3000);
    run(engine, {1, 2}, 40);
    engine.drop(1);
    engine.submit(3, 5000);  // in pages of request 1, among others
    run(engine, {2, 3}, 40);
    std::printf("%zu KiB of pages in all\n", engine.pool_bytes() / 1024);
    try {
      engine.step(1);
    } catch (const keyseek::Error& error) {
      std::printf("as it should be: %s\n", error.what());
    }
  } catch (const keyseek::Error& error) {
    std::fprintf(stderr, "paged_cache: %s\n", error.what());
    return 1;
  }
}
