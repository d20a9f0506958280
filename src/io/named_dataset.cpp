/// Reads and writes single datasets of HDF5 files.
#include "io/named_dataset.hpp"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/fail.hpp"
#include "io/extension.hpp"
#include "io/hdf5_reader.hpp"
#include "io/hdf5_writer.hpp"

namespace keyseek::io {
namespace {

/// The dataset that is meant, or an Error that says which there are.
hdf5::Dataset find(const hdf5::Reader& file, const NamedDataset& name) {
  const std::vector<std::string> names = file.names("/");
  if (name.dataset.empty() && names.size() == 1) return file.dataset(names[0], 2);
  if (!name.dataset.empty() && file.has(name.dataset)) return file.dataset(name.dataset, 2);
  std::string known;
  for (const std::string& one : names) known.append(known.empty() ? "" : ", ").append(one);
  const std::string path = name.file.string();
  require(!name.dataset.empty(), "{} holds {}: say which is meant, for example {}:{}", path, known,
          path, names.empty() ? "train" : names.back());
  fail(ErrorCode::invalid_argument, "{} has no dataset '{}', it holds {}", path, name.dataset,
       known);
}

/// A file that is not there yet, and what its dataset is called.
hdf5::Writer create(const NamedDataset& name) {
  require(!name.dataset.empty(), "{}: say what the dataset is called, for example {}:train",
          name.file.string(), name.file.string());
  std::error_code error;
  require(!std::filesystem::exists(name.file, error),
          "{} is there already: an HDF5 file is written whole, with one dataset",
          name.file.string());
  return hdf5::Writer(name.file);
}

}  // namespace

std::optional<NamedDataset> named_dataset(const std::filesystem::path& name) {
  if (is_hdf5(name)) return NamedDataset{name, {}};
  const std::string text = name.string();
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos || !is_hdf5(text.substr(0, colon))) return std::nullopt;
  return NamedDataset{text.substr(0, colon), text.substr(colon + 1)};
}

AnyMatrix read_dataset(const NamedDataset& name, const Hdf5Access& access) {
  const hdf5::Reader file(name.file, access);
  return find(file, name).read();
}

Matrix<Id> read_id_dataset(const NamedDataset& name, const Hdf5Access& access) {
  const hdf5::Reader file(name.file, access);
  return find(file, name).read_ids();
}

void write_dataset(const NamedDataset& name, AnyMatrixView vectors) {
  hdf5::Writer file = create(name);
  // HDF5 readers know no bf16; f32 holds every value of it.
  const bool wide = vectors.dtype == Dtype::bf16;
  const AnyMatrix whole = wide ? AnyMatrix() : AnyMatrix::look_at(vectors);
  const Matrix<float> floats = wide ? to_f32(vectors) : Matrix<float>();
  const auto element = vectors.dtype == Dtype::f16  ? hdf5::Element::f16
                       : vectors.dtype == Dtype::i8 ? hdf5::Element::i8
                                                    : hdf5::Element::f32;
  file.write(name.dataset, {vectors.rows, vectors.cols}, element,
             wide ? floats.data() : whole.view().data);
  file.commit();
}

void write_id_dataset(const NamedDataset& name, MatrixView<Id> ids) {
  hdf5::Writer file = create(name);
  Matrix<Id> whole(ids.rows, ids.cols);
  Id largest = 0;
  for (std::size_t i = 0; i < ids.rows; ++i) {
    std::copy_n(ids.row(i), ids.cols, whole.row(i));
    for (std::size_t j = 0; j < ids.cols; ++j) {
      if (ids.row(i)[j] != kNoId) largest = std::max(largest, ids.row(i)[j]);
    }
  }
  // As i32, where kNoId is -1 bit by bit, unless an id needs more.
  const auto element = largest <= INT32_MAX ? hdf5::Element::i32 : hdf5::Element::u32;
  file.write(name.dataset, {ids.rows, ids.cols}, element, whole.data());
  file.commit();
}

}  // namespace keyseek::io
