// The search: tiles of products, brackets, and the distances of what is in doubt.
#include <cmath>

#include "nearest_codes.h"

namespace deepclust::cpu {
namespace {

using namespace nearest;

// The lower ends of a tile's brackets, V vectors of centroids wide, and the running least of them.
// low [rows, ld], least [rows, 16]. Upper ends are left to the few centroids that pass the first look.
template <int V, typename T>
DC_INLINE void lower_ends(const float* __restrict__ dots, const CodeBounds* __restrict__ bounds, int64_t rows,
                          const CodedCentroids<T>& coded, int64_t first, float* __restrict__ low, int64_t ld,
                          float* __restrict__ least) {
  Vec16 half_low[V], scale[V], code_error[V], length[V];
  for (int v = 0; v < V; ++v) {
    load(coded.half_low.get() + first + 16 * v, half_low[v]);
    load(coded.scale.get() + first + 16 * v, scale[v]);
    load(coded.code_error.get() + first + 16 * v, code_error[v]);
    load(coded.length.get() + first + 16 * v, length[v]);
  }
  for (int64_t m = 0; m < rows; ++m) {
    Vec16 bottom;
    load(least + m * 16, bottom);
    for (int v = 0; v < V; ++v) {
      Vec16 dot;
      load(dots + m * kTileCols + 16 * v, dot);
      Vec16 end = half_low[v] - code_error[v] * bounds[m].length;
      end -= length[v] * bounds[m].error;
      end -= dot * scale[v] * bounds[m].scale;
      bottom = end < bottom ? end : bottom;  // keeps `bottom` where the end is NaN, from an overflow
      store(low + m * ld + 16 * v, end);
    }
    store(least + m * 16, bottom);
  }
}

struct Candidate {
  int32_t row, centroid;
  float low;
};

// Appends the centroids [first, last) of one point whose lower end is not above `limit`. Before, lowers `limit` to the
// least upper end, with what the errors of two computed distances allow. `passed` [(last - first) / 16] is scratch.
template <typename T>
DC_INLINE void look_at_row(const CodedCentroids<T>& coded, const CodeBounds& bounds, int64_t first, int64_t last,
                           const float* __restrict__ low, float least, double wrong, int32_t row, float& limit,
                           int64_t* __restrict__ passed, std::vector<Candidate>& found) {
  // Upper ends lie at most this far above lower ones, so that the least upper end is among what passes here.
  const float widest =
      (2.0f * (coded.most_code_error * bounds.length + coded.most_length * bounds.error) + coded.widest_half) * kSafe;
  const double reach = double{bounds.length} + bounds.error;
  const auto allowed = [&](float upper) DC_INLINE_LAMBDA {
    return upper + static_cast<float>(wrong / 2 * (reach * reach + 2 * std::max(0.0, double{upper}))) * kSafe;
  };
  const Vec16 coarse = Vec16{} + std::min(limit, allowed(least + widest));
  Vec16 top = Vec16{} + kInfinity;
  int64_t count = 0;
  for (int64_t k = first; k < last; k += 16) {
    Vec16 end;
    load(low + k - first, end);
    if (all_lanes(end > coarse)) continue;  // NaN, from an overflow, passes
    passed[count++] = k;
    Vec16 code_error, length, half_low, half_high;
    load(coded.code_error.get() + k, code_error);
    load(coded.length.get() + k, length);
    load(coded.half_low.get() + k, half_low);
    load(coded.half_high.get() + k, half_high);
    const Vec16 gap = (code_error * bounds.length + length * bounds.error) * 2.0f + (half_high - half_low);
    const Vec16 upper = end + gap * kSafe;
    top = upper < top ? upper : top;
  }
  const float upper = allowed(least_lane(top));
  limit = upper < limit ? upper : limit;
  const Vec16 bound = Vec16{} + limit;
  for (int64_t p = 0; p < count; ++p) {
    const int64_t k = passed[p];
    Vec16 end;
    load(low + k - first, end);
    if (all_lanes(end > bound)) continue;
    for (int64_t i = 0; i < 16 && k + i < coded.clusters; ++i)
      if (!(low[k - first + i] > limit)) found.push_back({row, static_cast<int32_t>(k + i), low[k - first + i]});
  }
}

// What is left of the centroids for points [begin, end): candidates in the order of centroids, and for every point the
// limit that their lower ends must not exceed. `distance`, where given, is a distance already reached.
template <typename T>
DC_INLINE void candidates_inline(const Points<T>& points, const CodedCentroids<T>& coded, int64_t begin, int64_t end,
                                 const T* distance, std::vector<Candidate>& found, float* limit) {
  const int64_t d = points.d, size = end - begin;
  const double wrong = 2.2 * distance_error<T>(d);  // both distances of a comparison may be off
  for (int64_t i = 0; i < size; ++i) {
    limit[i] = kInfinity;
    if (distance == nullptr) continue;
    const CodeBounds& b = points.bounds[begin + i];
    const double reach = b.length + b.error, inside = std::max(0.0, double{b.length} / kSafe / kSafe - b.error);
    const double reached = static_cast<double>(distance[i]);
    limit[i] = static_cast<float>((reached - inside * inside) / 2 + wrong * reached + 1e-6 * reach * reach);
  }
  // 512 KB of codes a block, in whole panels.
  const int64_t block = std::max(kTileCols, (int64_t{1} << 19) / coded.depth / kTileCols * kTileCols);
  const int64_t ld = std::min(coded.padded, block);
  const Buffer<float> low(kTileRows * ld), y(coded.int8 ? 1 : kTileRows * round_up(d, 16));
  const Buffer<int64_t> passed(ld / 16);
  const Panels<float> float_panels{coded.float_panels.get(), d, coded.padded};
  alignas(64) float dots[kTileRows * kTileCols], least[kTileRows * 16];
  for (int64_t first = 0; first < coded.padded; first += block) {
    const int64_t last = std::min(coded.padded, first + block);
    for (int64_t row = 0; row < size; row += kTileRows) {
      const int64_t rows = std::min(kTileRows, size - row);
      const CodeBounds* bounds = points.bounds + begin + row;
      int32_t shift[kTileRows] = {};
      for (int64_t m = 0; m < rows; ++m) shift[m] = bounds[m].shift;
      std::fill(least, least + kTileRows * 16, kInfinity);
      if (!coded.int8)
        for (int64_t m = 0; m < rows; ++m) {
          float square, largest;
          centre(points.x + (begin + row + m) * d, points.mean, d, false, y.get() + m * round_up(d, 16), square,
                 largest);
        }
      for (int64_t k = first; k < last; k += kTileCols) {
        const int64_t width = std::min(kTileCols, last - k);
        if (coded.int8)
          int8_tile(points.codes + (begin + row) * coded.depth, rows, coded.depth, shift,
                    coded.panels.get() + k * coded.depth, width, dots);
        else
          product(Matrix<const float>{y.get(), d, rows, 1, round_up(d, 16)}, float_panels, k, k + width, dots,
                  kTileCols, false);
        float* ends = low.get() + k - first;
        switch (width / 16) {
          case 1: lower_ends<1>(dots, bounds, rows, coded, k, ends, ld, least); break;
          case 2: lower_ends<2>(dots, bounds, rows, coded, k, ends, ld, least); break;
          default: lower_ends<3>(dots, bounds, rows, coded, k, ends, ld, least); break;
        }
      }
      for (int64_t m = 0; m < rows; ++m) {
        Vec16 bottom;
        load(least + m * 16, bottom);
        look_at_row(coded, bounds[m], first, last, low.get() + m * ld, least_lane(bottom), wrong,
                    static_cast<int32_t>(row + m), limit[row + m], passed.get(), found);
      }
    }
  }
}

template <typename T>
DC_INLINE void assign_inline(const Points<T>& points, const CodedCentroids<T>& coded, int64_t begin, int64_t end,
                             int64_t* labels) {
  std::vector<Candidate> found;
  found.reserve(static_cast<size_t>(4 * kSearchRows));
  float limit[kSearchRows];
  candidates_inline(points, coded, begin, end, static_cast<const T*>(nullptr), found, limit);
  int32_t count[kSearchRows] = {};
  T best[kSearchRows];
  // Limits fall from block to block, so that early candidates may be out by now.
  for (const Candidate& c : found)
    if (!(c.low > limit[c.row])) {
      labels[c.row] = c.centroid;
      ++count[c.row];
    }
  std::fill(best, best + kSearchRows, T(-1));
  for (const Candidate& c : found) {
    if (count[c.row] == 1 || c.low > limit[c.row]) continue;
    const T distance =
        distance_inline(points.x + (begin + c.row) * points.d, coded.centroids + c.centroid * points.d, points.d);
    // Candidates come in the order of centroids, so that a tie stays with the lowest.
    if (best[c.row] == T(-1) || distance < best[c.row]) {
      best[c.row] = distance;
      labels[c.row] = c.centroid;
    }
  }
}

template <typename T>
DC_INLINE void lower_inline(const Points<T>& points, const CodedCentroids<T>& coded, int64_t begin, int64_t end,
                            T* distance) {
  std::vector<Candidate> found;
  found.reserve(static_cast<size_t>(4 * kSearchRows));
  float limit[kSearchRows];
  candidates_inline(points, coded, begin, end, static_cast<const T*>(distance), found, limit);
  for (const Candidate& c : found) {
    if (c.low > limit[c.row]) continue;
    const T found_distance =
        distance_inline(points.x + (begin + c.row) * points.d, coded.centroids + c.centroid * points.d, points.d);
    if (found_distance < distance[c.row]) distance[c.row] = found_distance;
  }
}

template <typename T>
DC_INLINE double label_distances_inline(const T* x, const T* centroids, int64_t d, const int64_t* labels, int64_t begin,
                                        int64_t end, T* distance) {
  double sum = 0.0;
  for (int64_t i = begin; i < end; ++i) {
    distance[i - begin] = distance_inline(x + i * d, centroids + labels[i - begin] * d, d);
    sum += static_cast<double>(distance[i - begin]);
  }
  return sum;
}

}  // namespace

// One clone of every leaf for float and one for double: DC_CLONES does not go with templates.
#define DC_NEAREST(T)                                                                                                 \
  DC_CLONES T squared_distance(const T* x, const T* c, int64_t d) {                                                   \
    return distance_inline(x, c, d);                                                                                  \
  }                                                                                                                   \
  DC_CLONES void assign_points(const Points<T>& points, const CodedCentroids<T>& coded, int64_t begin, int64_t end,   \
                               int64_t* labels) {                                                                     \
    assign_inline(points, coded, begin, end, labels);                                                                 \
  }                                                                                                                   \
  DC_CLONES void lower_distances(const Points<T>& points, const CodedCentroids<T>& coded, int64_t begin, int64_t end, \
                                 T* distance) {                                                                       \
    lower_inline(points, coded, begin, end, distance);                                                                \
  }                                                                                                                   \
  DC_CLONES double label_distances(const T* x, const T* centroids, int64_t d, const int64_t* labels, int64_t begin,   \
                                   int64_t end, T* distance) {                                                        \
    return label_distances_inline(x, centroids, d, labels, begin, end, distance);                                     \
  }

DC_NEAREST(float)
DC_NEAREST(double)

}  // namespace deepclust::cpu
