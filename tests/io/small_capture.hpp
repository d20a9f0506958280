/// A capture made on the spot.
#pragma once

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "io/hdf5_writer.hpp"
#include "keyseek/matrix.hpp"

namespace keyseek::test {

/// Layers 2 and 10, KV heads 0 and 1, 2 query heads each, 32 tokens of dimension 4 (values: 3).
struct SmallCapture {
  std::size_t tokens = 32, value_tokens = 32, query_tokens = 32;
  std::size_t dim = 4, query_dim = 4, prefill = 24, rope_dim = 4, format_version = 1;
  double scale = 0.5;
  std::string layout = "half-split";
  std::string without;  ///< an attribute, or the dataset of L2/K0, that is left out

  /// Element (g, token, j) of any dataset: told apart by exact f16 values.
  static float element(std::size_t g, std::size_t token, std::size_t j) {
    return static_cast<float>(g * 512 + token * 8 + j) / 64;
  }

  void write(const std::filesystem::path& path) const {
    io::hdf5::Writer file(path);
    for (const std::size_t layer : {10U, 2U}) {
      for (const std::size_t head : {0U, 1U}) write_head(file, layer, head);
    }
    const auto set = [&](const std::string& name, auto value) {
      if (name != without) file.set("/", name, value);
    };
    set("model", std::string("small"));
    set("text", std::string("waves"));
    set("capture", std::string("made by a test"));
    set("prefill", prefill);
    set("scale", scale);
    set("rope_theta", 1e5);
    set("rope_dim", rope_dim);
    set("rope_layout", layout);
    set("format_version", format_version);
    file.set("L10", "rope_theta", 1e6);
    file.commit();
  }

 private:
  void write_head(io::hdf5::Writer& file, std::size_t layer, std::size_t head) const {
    const std::string group = "L" + std::to_string(layer) + "/K" + std::to_string(head) + "/";
    const auto write = [&](const std::string& name, std::vector<std::size_t> extents) {
      if (name == without && layer == 2 && head == 0) return;
      const bool planes = extents.size() == 3;
      const std::size_t rows = extents[planes ? 1 : 0], cols = extents.back();
      std::vector<Half> data;
      for (std::size_t g = 0; g < (planes ? extents[0] : 1); ++g) {
        for (std::size_t i = 0; i < rows * cols; ++i) {
          data.push_back(to_half(element(g, i / cols, i % cols)));
        }
      }
      file.write(group + name, extents, io::hdf5::Element::f16, data.data());
    };
    write("keys", {tokens, dim});
    write("values", {value_tokens, 3});
    write("queries", {2, query_tokens, query_dim});
  }
};

}  // namespace keyseek::test
