/// Owners and views of vectors.
///
/// The one convention of the library: a matrix is row-major, **its rows are
/// vectors**, `rows` counts them and `cols` is their dimension d. Views own
/// nothing and must not outlive what they look at; owners are values. Reading is
/// thread-safe, writing is not.
///
///     keyseek::Matrix<float> queries(4, 128);            // four zero vectors
///     queries.row(0)[5] = 1.0F;
///     keyseek::MatrixView<float> view = queries;         // no copy
///     auto keys = keyseek::AnyMatrixView::of(view);      // element type erased
///     auto stored = keyseek::AnyMatrix::copy_of(keys);   // owns them
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

namespace keyseek {

/// Number of a key: its row in the matrix it came from.
using Id = std::uint32_t;
/// "No key"; -1 at the Python border.
inline constexpr Id kNoId = 0xffffffffU;

/// IEEE 754 binary16 and bfloat16, as bits: storage types, converted for arithmetic.
struct Half {
  std::uint16_t bits;
};
struct BFloat16 {
  std::uint16_t bits;
};

/// Element type of vectors as stored.
enum class Dtype : std::uint8_t { f32 = 0, f16 = 1, bf16 = 2, i8 = 3 };

/// Bytes of one element.
[[nodiscard]] constexpr std::size_t size_of(Dtype t) noexcept {
  return t == Dtype::f32 ? 4 : t == Dtype::i8 ? 1 : 2;
}
/// "f32", "f16", "bf16" or "i8".
[[nodiscard]] std::string_view to_string(Dtype t) noexcept;

template <class T>
inline constexpr Dtype kDtypeOf = std::is_same_v<T, float>      ? Dtype::f32
                                  : std::is_same_v<T, Half>     ? Dtype::f16
                                  : std::is_same_v<T, BFloat16> ? Dtype::bf16
                                                                : Dtype::i8;

[[nodiscard]] float to_float(Half h) noexcept;
[[nodiscard]] float to_float(BFloat16 b) noexcept;
[[nodiscard]] Half to_half(float f) noexcept;          ///< rounds to nearest even
[[nodiscard]] BFloat16 to_bfloat16(float f) noexcept;  ///< rounds to nearest even

/// Memory that starts at a cache line, so that SIMD loads of a first row never split lines;
/// large pieces start at a huge page and ask the system for such pages, since a search reads
/// few keys all over them.
[[nodiscard]] void* allocate_aligned(std::size_t bytes);
void free_aligned(void* memory, std::size_t bytes) noexcept;

template <class T>
struct CacheAlignedAllocator {
  using value_type = T;
  CacheAlignedAllocator() = default;
  template <class U>
  explicit CacheAlignedAllocator(const CacheAlignedAllocator<U>&) noexcept {}
  [[nodiscard]] T* allocate(std::size_t n) {
    if (n > SIZE_MAX / sizeof(T)) throw std::bad_array_new_length();
    return static_cast<T*>(allocate_aligned(n * sizeof(T)));
  }
  void deallocate(T* p, std::size_t n) noexcept { free_aligned(p, n * sizeof(T)); }
  bool operator==(const CacheAlignedAllocator&) const = default;
};
template <class T>
using AlignedVector = std::vector<T, CacheAlignedAllocator<T>>;

/// A look at rows of T; `stride` is the distance of consecutive rows in elements.
template <class T>
struct MatrixView {
  const T* data = nullptr;
  std::size_t rows = 0;
  std::size_t cols = 0;
  std::size_t stride = 0;

  MatrixView() = default;
  MatrixView(const T* d, std::size_t r, std::size_t c) : data(d), rows(r), cols(c), stride(c) {}
  MatrixView(const T* d, std::size_t r, std::size_t c, std::size_t s)
      : data(d), rows(r), cols(c), stride(s) {}

  [[nodiscard]] const T* row(std::size_t i) const noexcept { return data + i * stride; }
  [[nodiscard]] bool empty() const noexcept { return rows == 0; }
  /// Rows [first, first + count).
  [[nodiscard]] MatrixView slice(std::size_t first, std::size_t count) const noexcept {
    return {data + first * stride, count, cols, stride};
  }
};

/// Owner of rows of T, zero-initialised, first row aligned to a cache line.
template <class T>
class Matrix {
 public:
  Matrix() = default;
  Matrix(std::size_t rows, std::size_t cols) : rows_(rows), cols_(cols), data_(rows * cols) {}

  [[nodiscard]] std::size_t rows() const noexcept { return rows_; }
  [[nodiscard]] std::size_t cols() const noexcept { return cols_; }
  [[nodiscard]] bool empty() const noexcept { return rows_ == 0; }
  [[nodiscard]] T* data() noexcept { return data_.data(); }
  [[nodiscard]] const T* data() const noexcept { return data_.data(); }
  [[nodiscard]] T* row(std::size_t i) noexcept { return data_.data() + i * cols_; }
  [[nodiscard]] const T* row(std::size_t i) const noexcept { return data_.data() + i * cols_; }
  [[nodiscard]] MatrixView<T> view() const noexcept { return {data_.data(), rows_, cols_}; }
  operator MatrixView<T>() const noexcept { return view(); }  // NOLINT(google-explicit-constructor)

 private:
  std::size_t rows_ = 0;
  std::size_t cols_ = 0;
  AlignedVector<T> data_;
};

/// A look at vectors whose element type is known at run time: keys as stored.
struct AnyMatrixView {
  const void* data = nullptr;
  Dtype dtype = Dtype::f32;
  std::size_t rows = 0;
  std::size_t cols = 0;
  std::size_t stride = 0;     ///< in elements
  const Id* slots = nullptr;  ///< row i is the slots[i]-th from `data` on; null: the i-th

  template <class T>
  [[nodiscard]] static AnyMatrixView of(MatrixView<T> m) noexcept {
    return {m.data, kDtypeOf<T>, m.rows, m.cols, m.stride};
  }
  [[nodiscard]] const void* row(std::size_t i) const noexcept {
    const std::size_t slot = slots == nullptr ? i : slots[i];
    return static_cast<const std::byte*>(data) + slot * stride * size_of(dtype);
  }
  /// Whether rows lie one behind the other, without gaps.
  [[nodiscard]] bool is_dense() const noexcept { return slots == nullptr && stride == cols; }
  /// Row i as f32 into `out[cols]`.
  void copy_row(std::size_t i, float* out) const noexcept;
  /// Bytes of a row's elements; rows may lie further apart.
  [[nodiscard]] std::size_t row_bytes() const noexcept { return cols * size_of(dtype); }
  [[nodiscard]] AnyMatrixView slice(std::size_t first, std::size_t count) const noexcept {
    if (slots != nullptr) return {data, dtype, count, cols, stride, slots + first};
    return {row(first), dtype, count, cols, stride};
  }
};

/// An immutable array whose bytes live on the heap or in a mapped file; copies
/// share them. What an index is made of, so that copying one is cheap and a
/// mapped one looks like a built one.
template <class T>
class SharedArray {
 public:
  SharedArray() = default;
  /// Takes over `values`.
  explicit SharedArray(AlignedVector<T> values) {
    auto owner = std::make_shared<AlignedVector<T>>(std::move(values));
    span_ = *owner;
    owner_ = std::move(owner);
  }
  /// Looks at `values`, which live as long as `owner` (null: as long as the caller says).
  SharedArray(std::span<const T> values, std::shared_ptr<const void> owner)
      : span_(values), owner_(std::move(owner)) {}

  [[nodiscard]] const T* data() const noexcept { return span_.data(); }
  [[nodiscard]] std::size_t size() const noexcept { return span_.size(); }
  [[nodiscard]] std::size_t bytes() const noexcept { return span_.size_bytes(); }
  [[nodiscard]] bool empty() const noexcept { return span_.empty(); }
  [[nodiscard]] const T& operator[](std::size_t i) const noexcept { return span_[i]; }
  [[nodiscard]] std::span<const T> span() const noexcept { return span_; }
  /// The first `count` of them, in the same memory.
  [[nodiscard]] SharedArray first(std::size_t count) const { return {span_.first(count), owner_}; }
  [[nodiscard]] auto begin() const noexcept { return span_.begin(); }
  [[nodiscard]] auto end() const noexcept { return span_.end(); }

 private:
  std::span<const T> span_;
  std::shared_ptr<const void> owner_;
};

/// Owner of vectors of any element type, or of the slots of *borrowed* ones, which lie all over
/// memory of somebody else's; copies share the bytes.
class AnyMatrix {
 public:
  AnyMatrix() = default;
  AnyMatrix(SharedArray<std::byte> bytes, Dtype dtype, std::size_t rows, std::size_t cols)
      : bytes_(std::move(bytes)), dtype_(dtype), rows_(rows), cols_(cols), stride_(cols) {}
  /// Borrows the vectors that begin slots[i] * stride elements behind the first of `memory`.
  [[nodiscard]] static AnyMatrix borrowed(SharedArray<std::byte> memory, Dtype dtype,
                                          SharedArray<Id> slots, std::size_t cols,
                                          std::size_t stride);
  /// Copies the vectors (without gaps between rows).
  [[nodiscard]] static AnyMatrix copy_of(AnyMatrixView m);
  /// Looks at the vectors, which the caller keeps.
  [[nodiscard]] static AnyMatrix look_at(AnyMatrixView m);

  [[nodiscard]] std::size_t rows() const noexcept { return rows_; }
  [[nodiscard]] std::size_t cols() const noexcept { return cols_; }
  [[nodiscard]] Dtype dtype() const noexcept { return dtype_; }
  [[nodiscard]] bool is_borrowed() const noexcept { return is_borrowed_; }
  /// Of all elements, wherever they lie.
  [[nodiscard]] std::size_t bytes() const noexcept { return rows_ * cols_ * size_of(dtype_); }
  /// Those that live as long as this: of borrowed vectors, their slots'.
  [[nodiscard]] std::size_t owned_bytes() const noexcept {
    return is_borrowed_ ? slots_.bytes() : bytes();
  }
  /// The elements of vectors that lie one behind the other.
  [[nodiscard]] const SharedArray<std::byte>& shared_bytes() const noexcept { return bytes_; }
  [[nodiscard]] AnyMatrixView view() const noexcept {
    return {bytes_.data(), dtype_, rows_, cols_, stride_, is_borrowed_ ? slots_.data() : nullptr};
  }
  /// The first `count` vectors, in the same memory.
  [[nodiscard]] AnyMatrix first(std::size_t count) const;
  /// The vectors that `rows` names: a copy, or borrowed as these are.
  [[nodiscard]] AnyMatrix at(std::span<const std::size_t> rows) const;
  /// These vectors, then `more` of the same type and dimension: a copy, or borrowed as these are.
  /// Throws Error when these are borrowed and `more` are not of the same memory.
  [[nodiscard]] AnyMatrix joined(AnyMatrixView more) const;
  /// Of the same memory as these, which are borrowed, the vectors in the slots of `others`.
  [[nodiscard]] AnyMatrix in_slots_of(const AnyMatrix& others) const {
    return borrowed(bytes_, dtype_, others.slots_, cols_, stride_);
  }

 private:
  SharedArray<std::byte> bytes_;  ///< of borrowed vectors, memory that has them
  SharedArray<Id> slots_;         ///< of borrowed vectors
  Dtype dtype_ = Dtype::f32;
  std::size_t rows_ = 0;
  std::size_t cols_ = 0;
  std::size_t stride_ = 0;
  bool is_borrowed_ = false;
};

/// Writes the rows as they are stored, without gaps; returns where they end.
std::byte* copy_rows(AnyMatrixView m, std::byte* to) noexcept;

/// All rows as f32, without gaps.
[[nodiscard]] Matrix<float> to_f32(AnyMatrixView m);

/// The largest magnitude of an element; of NaN and infinity it is not finite. 0 of no element.
[[nodiscard]] float largest_magnitude(AnyMatrixView m);

/// Throws Error(not_finite) that names `argument` and the first row with NaN or infinity.
void require_finite(AnyMatrixView m, std::string_view argument);

}  // namespace keyseek
