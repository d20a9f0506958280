/// All arrays of an index but the keys, which others may share, in one piece of memory.
///
/// A search reads a few keys, links and lists all over its index. In one piece, on huge
/// pages, the page table of the whole index fits the processor's; in a dozen pieces, each
/// of these reads begins with a walk through page tables that are not in the cache either.
#pragma once

#include "keyseek/graph.hpp"
#include "keyseek/key_store.hpp"
#include "keyseek/router.hpp"
#include "keyseek/sketch.hpp"

namespace keyseek {

void pack(KeyStore& store);
void pack(KeyStore& store, Sketch& sketch);
void pack(KeyStore& store, Graph& graph, Router& router);

}  // namespace keyseek
