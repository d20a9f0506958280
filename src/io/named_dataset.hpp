/// One dataset of an HDF5 file, where a name says which: "FILE.hdf5:train".
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "keyseek/io.hpp"

namespace keyseek::io {

struct NamedDataset {
  std::filesystem::path file;
  std::string dataset;  ///< empty: the file has to have just one
};

/// None when `name` is no HDF5 file's.
[[nodiscard]] std::optional<NamedDataset> named_dataset(const std::filesystem::path& name);

[[nodiscard]] AnyMatrix read_dataset(const NamedDataset& name, const Hdf5Access& access);
[[nodiscard]] Matrix<Id> read_id_dataset(const NamedDataset& name, const Hdf5Access& access);

/// A new file with just this dataset. Throws Error(invalid_argument) when there is one of that
/// name, which may hold more.
void write_dataset(const NamedDataset& name, AnyMatrixView vectors);
void write_id_dataset(const NamedDataset& name, MatrixView<Id> ids);

}  // namespace keyseek::io
