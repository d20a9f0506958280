// The examples that open the public headers, compiled word by word, and some of them run.
#include <gtest/gtest.h>
#include <keyseek/keyseek.hpp>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace keyseek::examples {

Partial attention(MatrixView<float> queries, AnyMatrixView window_keys, ValuesView window_values,
                  const Hits& hits, ValuesView values, float scale) {
  keyseek::AttendScratch scratch;
  keyseek::Partial near, far;
  keyseek::attend(queries, window_keys, window_values, scale, scratch, near);
  keyseek::attend_hits(hits, values, scale, scratch, far);
  keyseek::merge(far, near);
  return near;
}

void cuda_session(const std::vector<HeadCache*>& heads, DecodePool& pool, void* stream,
                  const std::function<void(const cuda::TokenInputs&)>& write_token,
                  const std::function<void(const void*)>& read_attention) {
  const auto shape = keyseek::cuda::session_shape(heads);  // HeadCaches of a layer, planned
  keyseek::cuda::DecodeSession session(keyseek::cuda::open_device(), shape, stream);
  session.load(heads);               // sink and window
  write_token(session.inputs());     // the model, on the same stream
  session.step(heads, pool);         // device and CPU
  read_attention(session.output());  // again on the stream
}

std::vector<float> decode(AnyMatrixView keys, AnyMatrixView values, MatrixView<float> queries,
                          MatrixView<float> step_queries, const float* key, const float* value) {
  keyseek::DecodeParams params{.max_error = 0.05, .scale = 0.0625F, .rope = {.theta = 1e6}};
  auto cache = keyseek::HeadCache::prefill(keys, values, queries, 4, params);
  keyseek::DecodeScratch scratch;
  keyseek::Matrix<float> out(4, cache.value_dim());
  cache.step(step_queries, key, value, scratch, out.data());
  return {out.data(), out.data() + 4 * cache.value_dim()};
}

void pages(std::span<const std::byte> pool, const RowPages& values, std::span<const Id> table,
           std::size_t head, std::size_t tokens, MatrixView<float> queries,
           const DecodeParams& params, const std::shared_ptr<const void>& owner) {
  const keyseek::RowPages keys =
      keyseek::RowPages::of_blocks(pool, keyseek::Dtype::bf16, {64, 8, 128}, head, owner);
  auto cache = keyseek::HeadCache::borrow(keys, values, table, tokens, queries, 4, params);
  cache.announce(1);  // the token after them has been written
}

void decode_params() {
  keyseek::DecodeParams promised{.max_error = 0.02, .scale = 0.125F};
  keyseek::DecodeParams given{.scale = 0.125F};
  given.given = keyseek::GivenPlan{.retriever = keyseek::Retriever::flat, .k = 50};
  given.validate();
}

void decode_options() {
  keyseek::DecodeParams params{.scale = 0.125F};
  keyseek::decode_option("sink").set_text(params, "64");
  for (const keyseek::DecodeOption& option : keyseek::decode_options())
    std::cout << option.name << ' ' << option.text(params) << ": " << option.allowed() << '\n';
}

void decode_heads(const std::vector<HeadCache*>& heads, MatrixView<float> queries,
                  MatrixView<float> keys, MatrixView<float> values) {
  keyseek::DecodePool pool(2);
  keyseek::Matrix<float> out(heads.size() * heads[0]->group(), heads[0]->value_dim());
  keyseek::step_heads(heads, queries, keys, values, pool, out.data());
}

Partial tail(MatrixView<float> train, std::size_t group, const Partial& exact, AnyMatrixView keys,
             ValuesView values, float scale, MatrixView<float> queries, const Hits& hits) {
  AttendScratch scratch;
  Partial retrieved, part;
  auto seen = keyseek::observe(train, group, exact, keys, values, scale, {.top = 256});
  auto tail = keyseek::Tail::fit(seen, keys, values, 100, {.vectors = 64});
  keyseek::attend_hits(hits, values, scale, scratch, retrieved);
  keyseek::attend_tail(queries, hits, retrieved, tail, scratch, part);
  return part;
}

void error(Index& index, const std::function<void(std::string_view)>& rebuild) {
  try {
    index = keyseek::Index::open("head.ks");
  } catch (const keyseek::Error& e) {
    if (e.code() != keyseek::ErrorCode::corrupt) throw;
    rebuild(e.what());
  }
}

Execution execution(const bool& interrupted) {
  keyseek::Execution run;
  run.threads = 2;
  run.executor = keyseek::thread_executor();  // or an engine's own pool
  run.progress = [&](std::string_view stage, std::size_t done, std::size_t total) {
    std::fprintf(stderr, "\r%.*s %zu/%zu", int(stage.size()), stage.data(), done, total);
    return !interrupted;
  };
  return run;
}

Graph graph(MatrixView<Id> lists, const KeyStore& store, const GraphParams& params,
            const std::vector<Id>& entry_points) {
  auto links = keyseek::project_cooccurrence(lists, store.size(), params);
  keyseek::prune(links, store, params.degree);
  keyseek::add_reverse(links, params.max_degree);
  keyseek::attach(links, entry_points, store);
  auto graph = keyseek::Graph::freeze(links, entry_points);
  return graph;
}

Hits index(AnyMatrixView keys, const TrainingQueries& training, MatrixView<float> queries) {
  auto index = keyseek::Index::build(keyseek::IndexKind::projection, keys, training);
  index.save("head.ks");
  auto mapped = keyseek::Index::open("head.ks", keyseek::FileMemory::mapped);
  keyseek::SearchScratch scratch;
  keyseek::Hits hits;
  mapped.search(queries, {.k = 100, .projection = {{.target_recall = 0.99}}}, scratch, hits);
  return hits;
}

Hits allowed_keys(const Index& index, MatrixView<float> queries) {
  keyseek::SearchScratch scratch;
  keyseek::Hits hits;
  keyseek::AllowedKeys recent(index.size());
  for (keyseek::Id id = 1000; id < 2000; ++id) recent.allow(id);
  index.search(queries, {.k = 10, .allowed = &recent}, scratch, hits);
  return hits;
}

KnnLists metric(AnyMatrixView keys, MatrixView<float> queries) {
  auto space = keyseek::MetricSpace::of(keyseek::Metric::l2, keys);
  auto lists = keyseek::exact_knn(space.keys(keys).view(), space.queries(queries), {.k = 10});
  return lists;
}

void io() {
  auto keys = keyseek::io::read_vectors("base.fbin");
  auto bench = keyseek::io::read_benchmark("llama-128-ip.hdf5");
  auto head = keyseek::io::read_capture("gemma.attn.h5", 11, 0);
  auto view = keyseek::io::decode_view(head, {.horizon = 1024});
}

std::size_t key_store(AnyMatrixView keys, MatrixView<float> training_queries,
                      MatrixView<float> queries) {
  auto store = keyseek::KeyStore::encode(keys, training_queries);
  auto encoded = store.encode_queries(queries);
  keyseek::AnyMatrixView exact = store.stored();
  return encoded.codes.rows() + exact.rows;
}

Hits everything(const Matrix<float>& keys, MatrixView<float> queries) {
  auto index =
      keyseek::Index::build(keyseek::IndexKind::flat, keyseek::AnyMatrixView::of(keys.view()));
  keyseek::SearchScratch scratch;
  keyseek::Hits hits;
  index.search(queries, {.k = 10}, scratch, hits);
  return hits;
}

bool knn(AnyMatrixView keys, MatrixView<float> queries) {
  auto truth = keyseek::exact_knn(keys, queries, {.k = 100});
  keyseek::Id best = truth.ids.row(3)[0];
  float product = truth.scores.row(3)[0];
  return best < keys.rows && product == inner_product(keys, best, queries.row(3));
}

AnyMatrix matrix() {
  keyseek::Matrix<float> queries(4, 128);
  queries.row(0)[5] = 1.0F;
  keyseek::MatrixView<float> view = queries;
  auto keys = keyseek::AnyMatrixView::of(view);
  auto stored = keyseek::AnyMatrix::copy_of(keys);
  return stored;
}

double measure(const Index& index, MatrixView<float> queries, const KnnLists& truth) {
  auto m = keyseek::measure_steps(index, queries, {.group = 4, .search = {.k = 100}});
  double found = keyseek::recall(truth.ids, m.ids);
  double microseconds = m.us_p50;
  return found / microseconds;
}

Index rope(AnyMatrixView keys, MatrixView<float> queries,
           const std::vector<std::size_t>& positions) {
  keyseek::RopeParams rope{.theta = 1e6};
  keyseek::TrainingSampleParams sample{.now = 32768, .horizon = 1024};
  auto training = keyseek::sample_training_queries(queries, positions, 4, rope, sample);
  auto index = keyseek::Index::build(keyseek::IndexKind::projection, keys, training);
  return index;
}

std::vector<Id> router(AnyMatrixView keys, MatrixView<float> queries, MatrixView<Id> lists,
                       MatrixView<float> new_queries) {
  std::vector<Id> ids;
  auto router = keyseek::Router::build(queries, lists, keys, {.clusters = 256});
  keyseek::RouteScratch scratch;
  for (auto near : router.nearest(new_queries, 4, 8, scratch)) {
    if (near != keyseek::kNoId) router.append_list(near, ids);
  }
  return ids;
}

float score(AnyMatrixView keys, MatrixView<float> queries) {
  std::vector<float> out(keys.rows * queries.rows);
  keyseek::score(keys, queries, out.data());
  float one = keyseek::inner_product(keys, 7, queries.row(0));
  return out[7 * queries.rows] - one;
}

void search(const Index& index, MatrixView<float> queries, MatrixView<float> next_queries,
            const std::function<void(Id)>& attend_to) {
  keyseek::SearchScratch scratch;
  keyseek::Hits hits;
  index.search(queries, {.k = 100}, scratch, hits);
  index.search(next_queries, {.k = 100, .previous = &hits}, scratch, hits);
  for (keyseek::Id id : hits.row_ids(0)) attend_to(id);
}

EncodedQueries sketch(AnyMatrixView keys, MatrixView<float> training_queries,
                      MatrixView<float> queries) {
  auto sketch = keyseek::Sketch::build(keys, training_queries);
  keyseek::EncodedQueries encoded;
  std::vector<float> scratch;
  sketch.encode_queries(queries, encoded, scratch);
  return encoded;
}

std::string snapshot() {
  keyseek::Snapshot<std::string> name(std::make_shared<const std::string>("old"));
  auto mine = name.get();
  name.set(std::make_shared<const std::string>("new"));
  return *mine + " " + *name.get();
}

template <class Build>
void system_error(Index& index, Build build) {
  try {
    index = keyseek::Index::open("head.ks");
  } catch (const keyseek::SystemError& e) {
    if (e.number() != ENOENT) throw;
    build();  // there is none yet
  }
}

void version() { std::cout << "keyseek " << keyseek::kVersion << '\n'; }

}  // namespace keyseek::examples

namespace keyseek {
namespace {

namespace fs = std::filesystem;

// Not __FILE__, which ccache may have made relative to the folder of the build.
const fs::path kThisFile = fs::path(KEYSEEK_TEST_DATA).parent_path() / "headers_test.cpp";

std::vector<std::string> lines_of(const fs::path& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

/// Without comment and spaces.
std::string bare(std::string line) {
  line.erase(std::min(line.find("//"), line.size()));
  std::erase_if(line, [](unsigned char c) { return std::isspace(c) != 0; });
  return line;
}

/// The lines indented by four or more spaces in the `///` block that opens a header.
std::vector<std::string> example_of(const fs::path& header) {
  constexpr std::string_view kComment = "///", kExample = "///     ";
  std::vector<std::string> example;
  for (const std::string& line : lines_of(header)) {
    if (!line.starts_with(kComment)) break;
    if (line.starts_with(kExample)) example.push_back(line.substr(kComment.size()));
  }
  return example;
}

TEST(Headers, ExamplesAreCompiledHere) {
  std::string here;
  for (const std::string& line : lines_of(kThisFile)) here += bare(line);
  const fs::path folder = kThisFile.parent_path().parent_path() / "include" / "keyseek";
  for (const auto& header : fs::directory_iterator(folder)) {
    const auto example = example_of(header.path());
    EXPECT_FALSE(example.empty()) << header.path() << " opens without an example";
    for (const std::string& line : example) {
      EXPECT_TRUE(here.find(bare(line)) != std::string::npos)
          << header.path() << ": not compiled in " << kThisFile << ":\n"
          << line;
    }
  }
}

TEST(Headers, ExamplesDoWhatTheySay) {
  const bool interrupted = true;
  EXPECT_EQ(examples::execution(interrupted).threads, 2);
  EXPECT_FALSE(examples::execution(interrupted).progress("test", 1, 2));

  const AnyMatrix unit = examples::matrix();
  EXPECT_EQ(unit.rows(), 4U);
  EXPECT_EQ(unit.cols(), 128U);

  Matrix<float> keys(128, 3);
  for (std::size_t i = 0; i < keys.rows(); ++i) keys.row(i)[i % 3] = static_cast<float>(i);
  const auto view = AnyMatrixView::of(keys.view());
  const auto queries = keys.view().slice(100, 4);
  EXPECT_TRUE(examples::knn(view, queries));
  EXPECT_EQ(examples::score(view, queries), 0.0F);
  EXPECT_EQ(examples::key_store(view, queries, queries), 132U);
  EXPECT_EQ(examples::everything(keys, queries).row_ids(0)[0], 127U);
  const KnnLists lists = exact_knn(view, queries, {.k = 60});
  EXPECT_FALSE(examples::router(view, queries, lists.ids, queries).empty());
  const KeyStore store = KeyStore::encode(view, queries);
  EXPECT_EQ(count_unreachable(examples::graph(lists.ids, store, {}, {0, 1})), 0U);

  const Hits hits = examples::everything(keys, queries);
  EXPECT_EQ(examples::attention(queries, view, {view}, hits, {view}, 1.0F).out.rows(), 4U);
  EXPECT_EQ(examples::snapshot(), "old new");

  Index index;
  bool built = false;
  examples::system_error(index, [&] { built = true; });
  EXPECT_TRUE(built);
}

}  // namespace
}  // namespace keyseek
