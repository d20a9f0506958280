/// Options that are words in Python and enumerations in the library.
#pragma once

#include <string>
#include <string_view>

#include "errors.hpp"
#include "keyseek/graph.hpp"
#include "keyseek/knn.hpp"
#include "keyseek/rope.hpp"

namespace keyseek::python {

/// A word and what it stands for; a table of them lists an option's values.
template <class T>
struct Named {
  std::string_view name;
  T value;
};

template <class T, std::size_t N>
[[nodiscard]] T value_of(const Named<T> (&table)[N], const std::string& name,
                         const char* argument) {
  std::string known;
  for (const Named<T>& entry : table) {
    if (entry.name == name) return entry.value;
    known += (known.empty() ? "'" : ", '") + std::string(entry.name) + "'";
  }
  refuse("{} is '{}', must be one of {}", argument, name, known);
}

[[nodiscard]] inline KnnMethod knn_method_of(const std::string& name, const char* argument) {
  static constexpr Named<KnnMethod> kMethods[] = {{"f32", KnnMethod::f32},
                                                  {"int8", KnnMethod::int8}};
  return value_of(kMethods, name, argument);
}

inline constexpr Named<LinkMethod> kLinkMethods[] = {{"cooccurrence", LinkMethod::cooccurrence},
                                                     {"pivot", LinkMethod::pivot}};
[[nodiscard]] inline LinkMethod link_method_of(const std::string& name, const char* argument) {
  return value_of(kLinkMethods, name, argument);
}

[[nodiscard]] inline RopeLayout rope_layout_of(const std::string& name, const char* argument) {
  static constexpr Named<RopeLayout> kLayouts[] = {{"half-split", RopeLayout::half_split},
                                                   {"interleaved", RopeLayout::interleaved}};
  return value_of(kLayouts, name, argument);
}

}  // namespace keyseek::python
