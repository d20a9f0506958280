/// Sections of an index file: docs/index-format.md.
#pragma once

#include <deque>
#include <string>
#include <string_view>
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
  void add(const Graph& graph);
  void add(const Router& router);
  void add(const std::vector<OperatingPoint>& points);
  void add(const ProjectionParams& params);
  void save(const std::filesystem::path& path) const { writer_.save(path); }

 private:
  template <class T>
  void add_array(std::string_view name, const SharedArray<T>& array);
  void add_numbers(std::string name, std::vector<double> numbers);

  ContainerWriter writer_;
  std::deque<std::vector<double>> numbers_;
};

/// Reads them back; every fault is an Error(corrupt).
[[nodiscard]] KeyStore read_store(const ContainerReader& reader);
[[nodiscard]] Graph read_graph(const ContainerReader& reader, std::size_t n);
[[nodiscard]] Router read_router(const ContainerReader& reader, const KeyStore& store);
[[nodiscard]] std::vector<OperatingPoint> read_points(const ContainerReader& reader);
[[nodiscard]] ProjectionParams read_params(const ContainerReader& reader);
/// Throws Error(corrupt) unless the file holds that kind of index.
void require_kind(const ContainerReader& reader, std::string_view kind);

}  // namespace keyseek
