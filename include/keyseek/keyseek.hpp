/// Everything of keyseek: attention-aware vector search by inner product.
///
/// Each header below says who owns what and what is thread-safe; docs/architecture.md says
/// how they hang together.
///
///     #include <keyseek/keyseek.hpp>
///     auto index = keyseek::Index::build(keyseek::IndexKind::flat,
///     keyseek::AnyMatrixView::of(keys.view())); keyseek::SearchScratch scratch; keyseek::Hits
///     hits; index.search(queries, {.k = 10}, scratch, hits);
#pragma once

#include "keyseek/allowed_keys.hpp"
#include "keyseek/attention.hpp"
#include "keyseek/cuda.hpp"
#include "keyseek/decode.hpp"
#include "keyseek/decode_options.hpp"
#include "keyseek/decode_params.hpp"
#include "keyseek/decode_pool.hpp"
#include "keyseek/error.hpp"
#include "keyseek/execution.hpp"
#include "keyseek/graph.hpp"
#include "keyseek/index.hpp"
#include "keyseek/io.hpp"
#include "keyseek/key_store.hpp"
#include "keyseek/knn.hpp"
#include "keyseek/matrix.hpp"
#include "keyseek/measure.hpp"
#include "keyseek/metric.hpp"
#include "keyseek/pages.hpp"
#include "keyseek/rope.hpp"
#include "keyseek/router.hpp"
#include "keyseek/score.hpp"
#include "keyseek/search.hpp"
#include "keyseek/system_error.hpp"
#include "keyseek/tail.hpp"
#include "keyseek/version.hpp"
