#include "nearest_kernel.h"

#include <algorithm>
#include <cmath>

namespace deepclust::cpu {
namespace {

using Vec16 = VectorOf<float>::type;
using Mask16 = VectorOf<float>::mask;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
// More than the relative error of a norm of up to 2^16 squares summed in float, and of the few steps after it.
constexpr float kSafe = 1.001f;
// Of any product or sum that the bounds are made of, relative to what they are made from.
constexpr float kRounding = 0x1p-19f;

template <typename V, typename T>
DC_INLINE void load(const T* from, V& vector) {
  __builtin_memcpy(&vector, from, sizeof(V));
}
template <typename V, typename T>
DC_INLINE void store(T* to, const V& vector) {
  __builtin_memcpy(to, &vector, sizeof(V));
}

// The first `count` elements, and zeros.
template <typename T>
DC_INLINE void load_some(const T* from, int64_t count, typename VectorOf<T>::type& vector) {
  T padded[kLanes<T>] = {};
  for (int64_t i = 0; i < count; ++i) padded[i] = from[i];
  load(padded, vector);
}

template <typename T>
DC_INLINE T distance_inline(const T* __restrict__ x, const T* __restrict__ c, int64_t d) {
  using V = typename VectorOf<T>::type;
  constexpr int64_t kL = kLanes<T>;
  V sum[4] = {};
  int64_t j = 0;
  for (; j + 4 * kL <= d; j += 4 * kL)
    for (int i = 0; i < 4; ++i) {
      V a, b;
      load(x + j + i * kL, a);
      load(c + j + i * kL, b);
      const V difference = a - b;
      sum[i] += difference * difference;
    }
  for (int i = 0; j < d; j += kL, ++i) {
    V a, b;
    if (j + kL <= d) {
      load(x + j, a);
      load(c + j, b);
    } else {
      load_some(x + j, d - j, a);
      load_some(c + j, d - j, b);
    }
    const V difference = a - b;
    sum[i] += difference * difference;
  }
  T lanes[kL];
  store(lanes, V((sum[0] + sum[1]) + (sum[2] + sum[3])));
  for (int64_t half = kL / 2; half > 0; half /= 2)
    for (int64_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

DC_INLINE float least_lane(const Vec16& vector) {
  float lanes[16];
  store(lanes, vector);
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] = lanes[i + half] < lanes[i] ? lanes[i + half] : lanes[i];
  return lanes[0];
}

// y = x - mean in float, zero up to whole vectors; the sum of its squares and its largest entry.
template <typename T>
DC_INLINE void centre(const T* __restrict__ x, const T* __restrict__ mean, int64_t d, float* __restrict__ y,
                      float& square, float& largest) {
  const int64_t padded = round_up(d, 16);
  for (int64_t j = 0; j < d; ++j) y[j] = static_cast<float>(x[j] - mean[j]);
  for (int64_t j = d; j < padded; ++j) y[j] = 0.0f;
  Vec16 sum = {}, most = {};
  for (int64_t j = 0; j < padded; j += 16) {
    Vec16 v;
    load(y + j, v);
    sum += v * v;
    const Vec16 absolute = v < 0.0f ? -v : v;
    most = absolute > most ? absolute : most;
  }
  square = largest = 0.0f;
  for (int i = 0; i < 16; ++i) {
    square += sum[i];
    largest = std::max(largest, most[i]);
  }
}

// Codes of y [padded] at `scale`, and the squared norm of what they miss.
DC_INLINE float round_to_codes(const float* __restrict__ y, int64_t padded, float scale, int8_t* __restrict__ codes,
                               int32_t& total, int32_t& squares) {
  typedef int8_t Bytes __attribute__((vector_size(16)));
  const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
  Vec16 missed = {};
  Mask16 sum = {}, square = {};
  for (int64_t j = 0; j < padded; j += 16) {
    Vec16 v;
    load(y + j, v);
    // Adding 1.5 * 2^23 leaves no bits behind the point: the nearest integer.
    Vec16 rounded = (v * inverse + 12582912.0f) - 12582912.0f;
    rounded = rounded > 127.0f ? Vec16{} + 127.0f : rounded;
    rounded = rounded < -127.0f ? Vec16{} - 127.0f : rounded;
    const Vec16 rest = v - rounded * scale;
    missed += rest * rest;
    const Mask16 code = __builtin_convertvector(rounded, Mask16);
    sum += code;
    square += code * code;
    const Bytes bytes = __builtin_convertvector(code, Bytes);
    store(codes + j, bytes);
  }
  float error = 0.0f;
  total = squares = 0;
  for (int i = 0; i < 16; ++i) {
    error += missed[i];
    total += sum[i];
    squares += square[i];
  }
  return error;
}

template <typename T>
DC_INLINE void encode_points_inline(const Points<T>& points, int64_t begin, int64_t end) {
  const int64_t padded = round_up(points.d, 16), depth = points.depth();
  const Buffer<float> row(padded);
  const Buffer<int8_t> codes(padded);
  for (int64_t i = begin; i < end; ++i) {
    float square, largest;
    centre(points.x + i * points.d, points.mean, points.d, row.get(), square, largest);
    const float norm = std::sqrt(square) * kSafe;
    CodeBounds& bounds = points.bounds[i];
    // y itself is x - mean rounded once, or twice from double.
    bounds = {1.0f, norm, norm * kRounding, 0};
    if (points.codes == nullptr) continue;
    int32_t total, squares;
    bounds.scale = largest / 127.0f;
    const float missed = round_to_codes(row.get(), padded, bounds.scale, codes.get(), total, squares);
    bounds.length = bounds.scale * std::sqrt(static_cast<float>(squares)) * kSafe;
    bounds.error += std::sqrt(missed) * kSafe;
    bounds.shift = static_cast<int32_t>(kCodeZero) * total;
    std::copy(codes.get(), codes.get() + depth, points.codes + i * depth);
  }
}

template <typename T>
DC_INLINE void encode_centroids_inline(const Points<T>& points, CodedCentroids<T>& coded, int64_t block) {
  const int64_t d = points.d, padded = round_up(d, 16), depth = coded.depth;
  const int64_t first = block * kTileCols, width = std::min(kTileCols, coded.padded - first);
  const Buffer<float> rows(kTileCols * padded);
  const Buffer<int8_t> codes(padded);
  uint8_t* panel = coded.panels.get() + (coded.int8 ? first * depth : 0);
  for (int64_t col = 0; col < width; ++col) {
    const int64_t k = first + col;
    float* row = rows.get() + col * padded;
    if (k >= coded.clusters) {  // nobody's candidate
      coded.half_low.get()[k] = coded.half_high.get()[k] = kInfinity;
      coded.scale.get()[k] = coded.code_error.get()[k] = coded.length.get()[k] = 0.0f;
      std::fill(row, row + padded, 0.0f);
      std::fill(codes.get(), codes.get() + padded, int8_t{0});
    } else {
      float square, largest, scale = 1.0f, missed = 0.0f;
      centre(coded.centroids + k * d, points.mean, d, row, square, largest);
      double half = 0.0;
      for (int64_t j = 0; j < d; ++j) {
        const double z = static_cast<double>(coded.centroids[k * d + j]) - static_cast<double>(points.mean[j]);
        half += 0.5 * z * z;
      }
      const float norm = std::sqrt(square) * kSafe;
      if (coded.int8) {
        int32_t total, squares;
        scale = largest / 127.0f;
        missed = round_to_codes(row, padded, scale, codes.get(), total, squares);
      } else {
        // The product is a chain of d roundings.
        const float chain = static_cast<float>(d) * 0x1p-23f * norm;
        missed = chain * chain;
      }
      coded.half_low.get()[k] = static_cast<float>(half) * (1.0f - kRounding);
      coded.half_high.get()[k] = static_cast<float>(half) * (1.0f + kRounding);
      coded.scale.get()[k] = scale;
      // Beside what the codes miss, the roundings of everything that is multiplied by a length of y.
      coded.code_error.get()[k] = std::sqrt(missed) * kSafe + 4.0f * kRounding * norm;
      coded.length.get()[k] = norm;
    }
    if (coded.int8)
      for (int64_t j = 0; j < depth; ++j)
        panel[j / 4 * width * 4 + col * 4 + j % 4] = static_cast<uint8_t>(codes.get()[j] + kCodeZero);
  }
  if (!coded.int8) {
    const Panels<float> panels{coded.float_panels.get(), d, coded.padded};
    lay_out(Matrix<const float>{rows.get(), d, width, 1, padded}, panels, first);
  }
}

// The lower ends of a tile's brackets, and the running least of their upper ends. low [rows, ld], least [rows, 16].
template <typename T>
DC_INLINE void bracket(const float* __restrict__ dots, const CodeBounds* __restrict__ bounds, int64_t rows,
                       const CodedCentroids<T>& coded, int64_t first, int64_t width, float* __restrict__ low,
                       int64_t ld, float* __restrict__ least) {
  for (int64_t col = 0; col < width; col += 16) {
    const int64_t k = first + col;
    Vec16 half_low, half_high, scale, code_error, length;
    load(coded.half_low.get() + k, half_low);
    load(coded.half_high.get() + k, half_high);
    load(coded.scale.get() + k, scale);
    load(coded.code_error.get() + k, code_error);
    load(coded.length.get() + k, length);
    for (int64_t m = 0; m < rows; ++m) {
      Vec16 dot, top;
      load(dots + m * kTileCols + col, dot);
      load(least + m * 16, top);
      const Vec16 product = dot * scale * bounds[m].scale;
      const Vec16 error = code_error * bounds[m].length + length * bounds[m].error;
      const Vec16 high = half_high - product + error;
      top = high < top ? high : top;  // keeps `top` where high is NaN, from an overflow
      store(least + m * 16, top);
      store(low + m * ld + col, Vec16(half_low - product - error));
    }
  }
}

struct Candidate {
  int32_t row, centroid;
  float low;
};

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
          centre(points.x + (begin + row + m) * d, points.mean, d, y.get() + m * round_up(d, 16), square, largest);
        }
      for (int64_t k = first; k < last; k += kTileCols) {
        const int64_t width = std::min(kTileCols, last - k);
        if (coded.int8)
          int8_tile(points.codes + (begin + row) * coded.depth, rows, coded.depth, shift,
                    coded.panels.get() + k * coded.depth, width, dots);
        else
          product(Matrix<const float>{y.get(), d, rows, 1, round_up(d, 16)}, float_panels, k, k + width, dots,
                  kTileCols, false);
        bracket(dots, bounds, rows, coded, k, width, low.get() + k - first, ld, least);
      }
      for (int64_t m = 0; m < rows; ++m) {
        Vec16 top;
        load(least + m * 16, top);
        const float upper = least_lane(top);
        const double reach = double{bounds[m].length} + bounds[m].error;
        const double allowed = wrong / 2 * (reach * reach + 2 * std::max(0.0, double{upper}));
        limit[row + m] = std::min(limit[row + m], upper + static_cast<float>(allowed) * kSafe);
        const float* __restrict__ ends = low.get() + m * ld;
        const Vec16 bound = Vec16{} + limit[row + m];
        for (int64_t k = first; k < last; k += 16) {
          Vec16 end_of;
          load(ends + k - first, end_of);
          const Mask16 out = end_of > bound;
          int32_t all = -1;
          for (int i = 0; i < 16; ++i) all &= out[i];
          if (all == -1) continue;
          for (int64_t i = 0; i < 16 && k + i < coded.clusters; ++i)
            if (!(ends[k - first + i] > limit[row + m]))  // NaN, from an overflow, stays in
              found.push_back({static_cast<int32_t>(row + m), static_cast<int32_t>(k + i), ends[k - first + i]});
        }
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
  DC_CLONES void encode_points(const Points<T>& points, int64_t begin, int64_t end) {                                 \
    encode_points_inline(points, begin, end);                                                                         \
  }                                                                                                                   \
  DC_CLONES void encode_centroids(const Points<T>& points, CodedCentroids<T>& coded, int64_t block) {                 \
    encode_centroids_inline(points, coded, block);                                                                    \
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
