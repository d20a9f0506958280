/// What a user asks of decoding with retrieval: a promise about the output, or a plan of one's own;
/// which tokens are attended exactly; how logits and rotary embedding are made. What is decided
/// upon it for a head is a HeadPlan (decode.hpp).
///
/// Plain values without state; `validate` refuses what makes no sense and names it.
///
///     keyseek::DecodeParams promised{.max_error = 0.02, .scale = 0.125F};
///     keyseek::DecodeParams given{.scale = 0.125F};
///     given.given = keyseek::GivenPlan{.retriever = keyseek::Retriever::flat, .k = 50};
///     given.validate();
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "keyseek/attention.hpp"
#include "keyseek/matrix.hpp"
#include "keyseek/rope.hpp"
#include "keyseek/search.hpp"

namespace keyseek {

/// How the indexed tokens of a head are attended.
enum class Retriever : std::uint8_t {
  everything = 0,  ///< exactly, all of them
  none = 1,        ///< by the tail alone
  flat = 2,        ///< the best by a flat index, and the tail
  sketch = 3,      ///< the best by a sketch index, and the tail
  projection = 4,  ///< the best by a projection index, and the tail
  custom = 5,      ///< the best by the caller's own search, and the tail
};
/// "everything", "none", "flat", "sketch", "projection" or "custom".
[[nodiscard]] std::string_view to_string(Retriever retriever) noexcept;

/// Which of the keys that were found are attended.
enum class Rule : std::uint8_t {
  top_k = 0,  ///< the k best
  /// DIPR (AlayaDB, arXiv 2504.10326): of these, logits above the largest - limit, where the
  /// largest is seeded by the tokens that are attended exactly.
  dipr = 1,
  /// Top-p (Twilight, arXiv 2502.02770): of these, the fewest that leave no more than 1 - limit
  /// of the mass of all that was seen, the exact tokens included.
  mass = 2,
};
/// "top-k", "dipr" or "mass".
[[nodiscard]] std::string_view to_string(Rule rule) noexcept;

/// A search of the caller's own over indexed keys [n, d]: fills `hits` with up to k ids per
/// query [G, d], best first, and their inner products.
using SearchKeys = std::function<void(MatrixView<float> queries, std::size_t k, Hits& hits)>;
/// Makes one for the keys, whenever they are indexed anew. Steps of different heads call it
/// from different threads; copies of a HeadCache share it.
using IndexKeys = std::function<SearchKeys(const AnyMatrix& keys)>;

/// A plan that the caller makes, with the rule of DecodeParams.
struct GivenPlan {
  /// None: complete, that is, of those that look at every key sketch where it reads markedly less,
  /// else flat.
  std::optional<Retriever> retriever = {};
  std::size_t k = 100;  ///< keys searched per query, at least 1
  /// dipr: in logits, at least 0; mass: a share in (0, 1]; both need it, top_k has none.
  std::optional<double> limit = {};
  double target_recall = 0.995;  ///< of the projection index's search
};

/// The same options by name, with their ranges: decode_options.hpp.
struct DecodeParams {
  // The plan: what is promised.
  /// Wanted mean of |out - full| / |full| over decode queries, in (0, 1). The plan aims at
  /// `safety` times this on held-out queries of the prompt.
  double max_error = 0.05;
  double safety = 0.8;
  /// 0: max_error is about the mean. Else a share in (0, 1): of held-out queries, at least so many
  /// are off by no more than safety * max_error.
  double confidence = 0;
  /// Largest |out - full| / |full|, in (0, 1], of planted queries: some of the prompt's own, each
  /// turned towards a token at random until its answer hangs on that. 1: any.
  double max_planted_error = 0.25;

  // Logits and rotary embedding: what the model computes.
  float scale = 0.0F;    ///< of the softmax; must be given, above 0
  float softcap = 0.0F;  ///< of the logits, after scaling: Logits; 0: none
  /// One for each query head of the group, or none: logits that take part in the softmax and have
  /// no value, as in Partial. (Not the tokens of `sink`: those have keys and values.)
  std::vector<float> null_logits = {};
  RopeParams rope = {};
  bool shift = true;  ///< false: queries are not re-rotated (no rotary embedding)

  // Static tokens: attended exactly.
  std::size_t sink = 128;      ///< first tokens
  std::size_t window = 512;    ///< newest tokens
  std::size_t horizon = 1024;  ///< T: tokens decoded between refreshes; attended exactly as well
  /// A refresh that is due begins, is planned aside, and is adopted before the token that comes so
  /// many later; what came meanwhile is not indexed yet. 0: one step does it all.
  std::size_t refresh_delay = 0;
  /// Tokens of the prompt, between sink and window, that its last queries attend to most
  /// (SnapKV, arXiv 2404.14469): attended exactly from then on.
  std::size_t pinned = 0;

  // The index.
  /// Fewer indexed tokens than this are not worth an index: all are attended.
  std::size_t least_indexed = 1024;
  /// Values of indexed tokens are kept in 8 bits with a scale each: less memory and less to
  /// read, at an error of a few thousandths of the value.
  bool int8_values = false;
  /// A query unlike all that trained the index is answered by a scan: SearchParams::scan_novel.
  bool scan_novel = true;
  /// Of the prompt's positions, the newest ones, whose queries train the index; at least 1,024.
  double share = 0.10;

  // What a plan is tried on, and what it may choose.
  /// Of the prompt's positions, the newest ones, whose queries a plan sees; at least 2,048.
  double plan_share = 0.20;
  std::size_t observed = 256;     ///< positions that train the tail
  std::size_t held_out = 48;      ///< positions that the plan is tried on, of each of two kinds
  std::size_t tail_vectors = 64;  ///< C; 0: no tail
  /// Keys retrieved per query at least. What the prompt's queries did not need may be what an
  /// answer needs (a number hidden in a long text): no summary can give it, a search can.
  std::size_t least_k = 16;
  std::size_t max_k = 512;  ///< keys retrieved per query at most
  /// A plan looks at every key, by a scan or a sketch. With this it also tries a projection index,
  /// and takes it where it reads less than half of these: it reads least, but may miss the one key
  /// that no query of the prompt wanted.
  bool may_miss = false;
  /// Most memory, in units of keys and values as stored: how much an index may take.
  double max_memory = 1.6;
  Rule rule = Rule::top_k;              ///< whose limit (top_k: whose k) is planned or given
  std::optional<GivenPlan> given = {};  ///< instead of what keeps max_error
  IndexKeys index = {};                 ///< instead of our indexes, in the plan or as given
  std::uint64_t seed = 1;

  [[nodiscard]] Logits logits() const noexcept { return {scale, softcap}; }
  /// How many of the newest positions of a prompt a plan sees the queries of: no others are needed.
  [[nodiscard]] std::size_t plan_positions(std::size_t tokens) const noexcept;
  /// Throws Error(invalid_argument) on what is out of range, and on what is not as it is by default
  /// although nobody would read it: max_error beside a given plan, a limit of top-k.
  void validate() const;
};

}  // namespace keyseek
