#include "subspace.h"

#include <cmath>

#include "../../common/buffer.h"
#include "row_codes.h"

namespace deepclust::cpu {
namespace {

constexpr int64_t kSample = 1024;    // rows that the directions come from
constexpr int64_t kMostWidth = 192;  // columns that are looked for,
constexpr int64_t kLeastGain = 2;    // half of the dimensions at most
constexpr int kSteps = 2;            // of orthogonal iteration
// Share of the sample's squares outside the span. Runs on Fashion-MNIST's pixels and 256 components took up to two
// thirds longer at .06 and .15; its pixels three times as long at .03, and twice at .25.
constexpr double kRest = 0.1;

template <typename L>
DC_INLINE float dot(const float* a, const float* b, int64_t size) {
  using R = Register<L, float>;
  typename R::type sum[R::kParts] = {};
  for (int64_t j = 0; j < size; j += 16)
    for (int p = 0; p < R::kParts; ++p)
      sum[p] += load<L, float>(a + j + p * R::kLanes) * load<L, float>(b + j + p * R::kLanes);
  return sum_lanes<L, float>(sum);
}

template <typename L>
DC_INLINE void subtract(float* y, const float* x, float factor, int64_t size) {
  constexpr int64_t kL = Register<L, float>::kLanes;
  for (int64_t j = 0; j < size; j += kL) store<L, float>(y + j, load<L, float>(y + j) - load<L, float>(x + j) * factor);
}

// Orthonormal rows of w [rows, size], in their order: Gram and Schmidt's way, twice. Returns how many there are: from a
// row on that the others nearly span nothing is left.
template <typename L>
DC_INLINE int64_t orthonormalise(float* w, int64_t rows, int64_t size) {
  for (int64_t i = 0; i < rows; ++i) {
    float* row = w + i * size;
    const float before = std::sqrt(dot<L>(row, row, size));
    for (int pass = 0; pass < 2; ++pass)
      for (int64_t j = 0; j < i; ++j) subtract<L>(row, w + j * size, dot<L>(w + j * size, row, size), size);
    const float norm = std::sqrt(dot<L>(row, row, size));
    if (!(norm > 1e-5f * before)) return i;
    for (int64_t j = 0; j < size; ++j) row[j] /= norm;
  }
  return rows;
}

// The Frobenius norm of w w^T - I.
double deviation(const float* w, int64_t rows, int64_t size) {
  double squares = 0.0;
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j <= i; ++j) {
      double sum = i == j ? -1.0 : 0.0;
      for (int64_t k = 0; k < size; ++k)
        sum += static_cast<double>(w[i * size + k]) * static_cast<double>(w[j * size + k]);
      squares += (i == j ? 1.0 : 2.0) * sum * sum;
    }
  return std::sqrt(squares);
}

}  // namespace

struct FindSubspace {
  template <typename L, typename T>
  static DC_INLINE void run(const T* x, const T* mean, int64_t n, int64_t d, Subspace& found) {
    const int64_t rows = std::min(n, kSample), size = round_up(d, 16);
    int64_t width = std::min(kMostWidth, d / kLeastGain / 16 * 16);
    const Buffer<float> sample(rows * size), w(width * size), memory(Panels<float>::size(d, width)), a(rows * width),
        back(d * width);
    double total = 0.0;
    for (int64_t i = 0; i < rows; ++i) {
      float square, largest;
      centre<L>(x + i * n / rows * d, mean, d, false, sample.get() + i * size, square, largest);
      total += static_cast<double>(square);
    }
    if (!(total > 0.0) || !std::isfinite(static_cast<float>(total))) return;
    for (int64_t j = 0; j < d; ++j)
      for (int64_t c = 0; c < width; ++c)
        back.get()[j * width + c] = (mix_bits(static_cast<uint64_t>(j * width + c)) & 1) != 0 ? 1.0f : -1.0f;
    // a = sample times the columns in `back`.
    const auto forward = [&]() DC_INLINE_LAMBDA {
      const Panels<float> panels = panels_of(Matrix<const float>{back.get(), d, width, width, 1}, memory.get());
      product(Matrix<const float>{sample.get(), d, rows, 1, size}, panels, 0, width, a.get(), width, false);
    };
    forward();
    for (int step = 0; step < kSteps; ++step) {
      product(Matrix<const float>{sample.get(), rows, d, size, 1}, row_major_panels<float>(a.get(), rows, width), 0,
              width, back.get(), width, false);
      for (int64_t c = 0; c < width; ++c)
        for (int64_t j = 0; j < size; ++j) w.get()[c * size + j] = j < d ? back.get()[j * width + c] : 0.0f;
      const int64_t left = orthonormalise<L>(w.get(), width, size) / 16 * 16;
      if (left == 0) return;
      width = left;
      for (int64_t j = 0; j < d; ++j)
        for (int64_t c = 0; c < width; ++c) back.get()[j * width + c] = w.get()[c * size + j];
      forward();
    }
    // As many columns, sixteen at a time, as leave little outside.
    double within = 0.0;
    int64_t chosen = 0;
    while (chosen < width && !(total - within < kRest * total)) {
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t c = chosen; c < chosen + 16; ++c) {
          const double entry = static_cast<double>(a.get()[i * width + c]);
          within += entry * entry;
        }
      chosen += 16;
    }
    const double delta = deviation(w.get(), chosen, size);
    if (!(total - within < kRest * total) || !(delta < 1e-3)) return;
    found.depth_ = d;
    found.width_ = chosen;
    found.delta_ = delta;
    found.rounding_ = 0x1p-23 * static_cast<double>(d) * std::sqrt(static_cast<double>(chosen));
    found.slack_ = static_cast<float>(1.2 * delta + 3.0 * found.rounding_);
    found.columns_.resize(static_cast<size_t>(Panels<float>::size(d, chosen)));
    panels_of(Matrix<const float>{w.get(), d, chosen, 1, size}, found.columns_.data());
  }
};

template <typename T>
Subspace Subspace::of(const T* x, const T* mean, int64_t n, int64_t d) {
  Subspace found;
  dispatch<FindSubspace>(x, mean, n, d, found);
  return found;
}

float Subspace::rest(float square, float within) const {
  // Of sums in float: sixteen chains at least, and what adds them up.
  const double wrong = (static_cast<double>(depth_) / 4.0 + 32.0) * 0x1p-23;
  const double whole = static_cast<double>(square) * (1.0 + wrong);
  const double least = std::sqrt(static_cast<double>(within) * (1.0 - wrong)) - rounding_ * std::sqrt(whole);
  const double inside = least > 0.0 ? least * least / (1.0 + delta_) : 0.0;
  const double left = whole - inside;
  // A difference of infinities bounds nothing.
  return left >= 0.0        ? static_cast<float>(std::sqrt(left)) * kSafe + lost_norm(depth_)
         : std::isnan(left) ? std::numeric_limits<float>::infinity()
                            : lost_norm(depth_);
}

template Subspace Subspace::of(const float*, const float*, int64_t, int64_t);
template Subspace Subspace::of(const double*, const double*, int64_t, int64_t);

}  // namespace deepclust::cpu
