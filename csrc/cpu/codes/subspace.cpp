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
  static DC_INLINE void run(const T* x, int64_t x_stride, const T* mean, int64_t n, int64_t d,
                            const SubspaceWidth& choose, Subspace& found) {
    const int64_t rows = std::min(n, kSample), size = round_up(d, 16);
    int64_t width = std::min(kMostWidth, d / kLeastGain / 16 * 16);
    const Buffer<float> sample(rows * size), w(width * size), memory(Panels<float>::size(d, width)), a(rows * width),
        back(d * width);
    // Rows at even steps, from the first or from half a step on; the sum of their squares.
    const auto take = [&](int64_t half) DC_INLINE_LAMBDA {
      double total = 0.0;
      for (int64_t i = 0; i < rows; ++i) {
        float square, largest;
        centre<L>(x + (2 * i + half) * n / (2 * rows) * x_stride, mean, d, false, sample.get() + i * size, square,
                  largest);
        total += static_cast<double>(square);
      }
      return total;
    };
    const double total = take(0);
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
    // Of other rows: along directions that are few rows' own, those rows alone vary.
    take(1);
    forward();
    const int64_t chosen = choose({sample.get(), rows, size, a.get(), width});
    if (chosen == 0) return;
    const double delta = deviation(w.get(), chosen, size);
    if (!(delta < 1e-3)) return;
    found.depth_ = d;
    found.width_ = chosen;
    found.delta_ = delta;
    const int64_t chain = std::min(d, Subspace::kChain) + d / Subspace::kChain;
    found.rounding_ = 0x1p-23 * static_cast<double>(chain) * std::sqrt(static_cast<double>(chosen));
    found.slack_ = static_cast<float>(1.2 * delta + 3.0 * found.rounding_);
    found.columns_.resize(static_cast<size_t>(Panels<float>::size(d, chosen)));
    for (int64_t k = 0; k < d; k += Subspace::kChain)
      panels_of(Matrix<const float>{w.get() + k, std::min(Subspace::kChain, d - k), chosen, 1, size},
                found.columns_.data() + k * chosen);
  }
};

SubspaceWidth width_leaving(double share) {
  return [share](const SubspaceSample& sample) -> int64_t {
    double total = 0.0, within = 0.0;
    for (int64_t i = 0; i < sample.count * sample.size; ++i)
      total += static_cast<double>(sample.rows[i]) * static_cast<double>(sample.rows[i]);
    for (int64_t chosen = 0; chosen < sample.width;) {
      for (int64_t i = 0; i < sample.count; ++i)
        for (int64_t c = chosen; c < chosen + 16; ++c) {
          const double entry = static_cast<double>(sample.coordinates[i * sample.width + c]);
          within += entry * entry;
        }
      chosen += 16;
      if (total - within < share * total) return chosen;
    }
    return 0;
  };
}

template <typename T>
Subspace Subspace::of(const T* x, int64_t x_stride, const T* mean, int64_t n, int64_t d, const SubspaceWidth& choose) {
  Subspace found;
  dispatch<FindSubspace>(x, x_stride, mean, n, d, choose, found);
  return found;
}

void Subspace::project(const float* y, int64_t rows, int64_t ld, float* out) const {
  const Buffer<float> part(depth_ > kChain ? rows * width_ : 0);
  for (int64_t k = 0; k < depth_; k += kChain) {
    const int64_t steps = std::min(kChain, depth_ - k);
    const Panels<float> panels{const_cast<float*>(columns_.data()) + k * width_, steps, width_};
    product(Matrix<const float>{y + k, steps, rows, 1, ld}, panels, 0, width_, k == 0 ? out : part.get(), width_,
            false);
    for (int64_t i = 0; k > 0 && i < rows * width_; ++i) out[i] += part.get()[i];
  }
}

// A sum of `depth` squares in float: sixteen chains at least, and what adds them up.
static double square_error(int64_t depth) {
  return (static_cast<double>(depth) / 4.0 + 32.0) * 0x1p-23;
}

float Subspace::rest(float square, float within) const {
  const double wrong = square_error(depth_);
  const double whole = static_cast<double>(square) * (1.0 + wrong);
  const double least = std::sqrt(static_cast<double>(within) * (1.0 - wrong)) - rounding_ * std::sqrt(whole);
  const double inside = least > 0.0 ? least * least / (1.0 + delta_) : 0.0;
  const double left = whole - inside;
  // A difference of infinities bounds nothing.
  return left >= 0.0        ? static_cast<float>(std::sqrt(left)) * kSafe + lost_norm(depth_)
         : std::isnan(left) ? std::numeric_limits<float>::infinity()
                            : lost_norm(depth_);
}

Subspace::Outside Subspace::outside(float square, float within) const {
  // |a - Q^T y| <= apart |y|, so that the square of the length errs by wrong |y|^2 at most.
  const double apart = 1.1 * delta_ + rounding_, wrong = 2.1 * (square_error(depth_) + apart);
  const double whole = static_cast<double>(square), norm = std::sqrt(whole) * (1.0 + wrong);
  const double length = std::sqrt(std::max(0.0, whole - static_cast<double>(within)));
  // Of r^2 - s^2 = (r - s) (r + s); and r - s is no more than the root of that.
  const double error =
      length > 0.0 ? std::min(std::sqrt(wrong) * norm, wrong * norm * norm / length) : std::sqrt(wrong) * norm;
  return {static_cast<float>(length), static_cast<float>(apart * norm + error) * kSafe + 2 * lost_norm(depth_)};
}

template Subspace Subspace::of(const float*, int64_t, const float*, int64_t, int64_t, const SubspaceWidth&);
template Subspace Subspace::of(const double*, int64_t, const double*, int64_t, int64_t, const SubspaceWidth&);

}  // namespace deepclust::cpu
