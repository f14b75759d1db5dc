#include "projection.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "../../common/buffer.h"
#include "../simd/lanes.h"

namespace deepclust::cpu {
namespace {

constexpr int64_t kLeastPoints = 4096, kLeastAsked = 1024;
constexpr int64_t kAsked = 128;  // rows of the sample that ask for their nearest
// In multiply-adds of 16 bits: an exact cost is so much for every dimension, for the rows come from far, and so much
// besides.
constexpr double kCostOfStep = 8, kCostOfPair = 600;
// Of the work without a subspace; what is gained must pay for finding it.
constexpr double kWorthwhile = 0.75;

struct ChooseWidth {
  template <typename L>
  static DC_INLINE void run(const SubspaceSample& sample, int64_t k, int64_t points, int64_t& chosen) {
    const int64_t m = sample.count, asked = std::min(m, kAsked), steps = sample.width / 16;
    const int64_t nearest = std::clamp<int64_t>((k * m + points - 1) / points, 1, m - 1);
    const Buffer<float> squares(m * steps), apart(m), sorted(m);
    // What is outside of the first 16 s - 1 coordinates: the last of a width is the length of that.
    for (int64_t i = 0; i < m; ++i) {
      const float* const row = sample.rows + i * sample.size;
      const float* const a = sample.coordinates + i * sample.width;
      float left = pair_sum<L, false>(row, row, sample.size);
      for (int64_t c = 0; c < sample.width; ++c) {
        if (c % 16 == 15) squares.get()[i * steps + c / 16] = std::sqrt(std::max(left, 0.0f));
        left -= a[c] * a[c];
      }
    }
    std::vector<int64_t> within(static_cast<size_t>(steps), 0);
    for (int64_t q = 0; q < asked; ++q) {
      const int64_t i = q * m / asked;
      for (int64_t j = 0; j < m; ++j)
        apart.get()[j] =
            squared_distance_of<L>(sample.rows + i * sample.size, sample.rows + j * sample.size, sample.size);
      std::copy(apart.get(), apart.get() + m, sorted.get());
      // One more: the row itself.
      std::nth_element(sorted.get(), sorted.get() + nearest, sorted.get() + m);
      const float reach = sorted.get()[nearest] * 1.01f;
      for (int64_t j = 0; j < m; ++j) {
        const float* const a = sample.coordinates + i * sample.width;
        const float* const b = sample.coordinates + j * sample.width;
        float inside = 0.0f;
        for (int64_t s = 0; s < steps && inside <= reach; ++s) {
          float last = 0.0f;
          for (int64_t c = 16 * s; c < 16 * s + 16; ++c) {
            last = (a[c] - b[c]) * (a[c] - b[c]);
            inside += last;
          }
          const float outside = squares.get()[i * steps + s] - squares.get()[j * steps + s];
          within[static_cast<size_t>(s)] += static_cast<int64_t>(inside - last + outside * outside <= reach);
        }
      }
    }
    const double d = static_cast<double>(sample.size);
    double least = kWorthwhile * d;
    chosen = 0;
    for (int64_t s = 0; s < steps; ++s) {
      const double share = static_cast<double>(within[static_cast<size_t>(s)]) / static_cast<double>(asked * m);
      const double work = static_cast<double>(16 * s + 16) + share * (kCostOfStep * d + kCostOfPair);
      if (work < least) {
        least = work;
        chosen = 16 * s + 16;
      }
    }
  }
};

}  // namespace

bool worth_projecting(int64_t asked, int64_t points, int64_t depth) {
  return depth >= kLeastProjectedDepth && points >= kLeastPoints && asked >= kLeastAsked;
}

SubspaceWidth width_for_neighbours(int64_t k, int64_t points) {
  return [k, points](const SubspaceSample& sample) {
    int64_t chosen = 0;
    dispatch<ChooseWidth>(sample, k, points, chosen);
    return chosen;
  };
}

}  // namespace deepclust::cpu
