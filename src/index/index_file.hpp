/// Sections of an index file: docs/index-format.md.
#pragma once

#include <cstddef>
#include <deque>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "file/container.hpp"
#include "keyseek/index.hpp"

namespace keyseek {

/// Writes parts of an index; small values that have no array of their own live here until
/// the file is saved.
class IndexFileWriter {
 public:
  explicit IndexFileWriter(std::string kind) : writer_(std::move(kind)) {}

  void add(const KeyStore& store);
  void add(const Sketch& sketch);
  void add(const Graph& graph);
  void add(const Router& router);
  void add(const std::vector<OperatingPoint>& points);
  void add(const ProjectionParams& params);
  void add_numbers(std::string name, std::vector<double> numbers);
  /// Looked at, not copied.
  void add_bytes(std::string name, std::span<const std::byte> bytes) {
    writer_.add(std::move(name), bytes);
  }
  /// Looked at; borrowed rows are copied, so that they lie one behind the other.
  void add_rows(std::string name, AnyMatrixView rows);
  void save(const std::filesystem::path& path) const { writer_.save(path); }
  [[nodiscard]] std::vector<std::byte> bytes() const { return writer_.bytes(); }

 private:
  void add_matrix(std::string_view name, std::string_view shape_name, const AnyMatrix& matrix);
  template <class T>
  void add_array(std::string_view name, const SharedArray<T>& array);

  ContainerWriter writer_;
  std::deque<std::vector<double>> numbers_;
  std::deque<AnyMatrix> copies_;
};

/// Numbers of one section, taken one after the other; every fault is an Error(corrupt).
class Numbers {
 public:
  Numbers(const ContainerReader& reader, std::string_view name);

  [[nodiscard]] std::size_t count() const { return numbers_.size(); }
  [[nodiscard]] bool done() const { return next_ == numbers_.size(); }
  double real();
  double real_or_infinite();
  /// In [least, most].
  double real_in(double least, double most);
  /// A count, as base/saved_count.hpp keeps it.
  std::size_t whole();
  /// A whole number that is at most `largest`.
  std::size_t whole_up_to(std::size_t largest);
  void check(bool ok, const char* what) const;
  void finish() const { check(done(), "is longer than it should be"); }

 private:
  std::filesystem::path path_;
  std::string name_;
  SharedArray<double> numbers_;
  std::size_t next_ = 0;
};

/// Reads them back; every fault is an Error(corrupt).
[[nodiscard]] KeyStore read_store(const ContainerReader& reader);
[[nodiscard]] Sketch read_sketch(const ContainerReader& reader, const KeyStore& store);
[[nodiscard]] Graph read_graph(const ContainerReader& reader, std::size_t n);
[[nodiscard]] Router read_router(const ContainerReader& reader, const KeyStore& store);
[[nodiscard]] std::vector<OperatingPoint> read_points(const ContainerReader& reader);
[[nodiscard]] ProjectionParams read_params(const ContainerReader& reader);

}  // namespace keyseek
