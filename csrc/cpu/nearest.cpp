#include "nearest_kernel.h"

#include <algorithm>
#include <cmath>

#include "../common/random.h"

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

// The lanes by halves, in registers.
DC_INLINE float sum_lanes(const Vec16& v) {
  const auto eight = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                     __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
  const auto four =
      __builtin_shufflevector(eight, eight, 0, 1, 2, 3) + __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
  return (four[0] + four[2]) + (four[1] + four[3]);
}
DC_INLINE double sum_lanes(const VectorOf<double>::type& v) {
  const auto four = __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
  return (four[0] + four[2]) + (four[1] + four[3]);
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
  return sum_lanes(V((sum[0] + sum[1]) + (sum[2] + sum[3])));
}

DC_INLINE float least_lane(const Vec16& v) {
  const auto least = [](const auto& a, const auto& b) DC_INLINE_LAMBDA { return a < b ? a : b; };
  const auto eight = least(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7),
                           __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
  const auto four =
      least(__builtin_shufflevector(eight, eight, 0, 1, 2, 3), __builtin_shufflevector(eight, eight, 4, 5, 6, 7));
  return std::min(std::min(four[0], four[2]), std::min(four[1], four[3]));
}

// Whether every lane of a comparison holds. Lane by lane this would cost more than the comparison.
DC_INLINE bool all_lanes(const Mask16& mask) {
  typedef int8_t Bytes __attribute__((vector_size(16)));
  const Bytes bytes = __builtin_convertvector(mask, Bytes);
  int64_t halves[2];
  __builtin_memcpy(halves, &bytes, sizeof(halves));
  return (halves[0] & halves[1]) == -1;
}

// One stage of the Hadamard transform inside a vector: lanes `Step` apart become their sum and difference.
template <int Step>
DC_INLINE void mix_lanes(Vec16& v) {
  Mask16 partner;
  Vec16 sign;
  for (int i = 0; i < 16; ++i) {
    partner[i] = i ^ Step;
    sign[i] = (i & Step) != 0 ? -1.0f : 1.0f;
  }
  v = __builtin_shuffle(v, partner) + v * sign;
}

// The Hadamard transform of y [size], a power of two of at least 16, with rows of length 1.
DC_INLINE void hadamard(float* __restrict__ y, int64_t size) {
  const float factor = 1.0f / std::sqrt(static_cast<float>(size));
  for (int64_t j = 0; j < size; j += 16) {
    Vec16 v;
    load(y + j, v);
    v *= factor;
    mix_lanes<1>(v);
    mix_lanes<2>(v);
    mix_lanes<4>(v);
    mix_lanes<8>(v);
    store(y + j, v);
  }
  for (int64_t step = 16; step < size; step *= 2)
    for (int64_t base = 0; base < size; base += 2 * step)
      for (int64_t j = base; j < base + step; j += 16) {
        Vec16 a, b;
        load(y + j, a);
        load(y + j + step, b);
        store(y + j, Vec16(a + b));
        store(y + j + step, Vec16(a - b));
      }
}

// Turns y [padded] by an orthogonal matrix that depends on `padded` alone. Products stay what they are, but the entries
// become about equally large, so that 8 bits with one scale a row lose a third of what they lose on columns of very
// different variance (principal components). Signs first: what looks like a row of the transform would end as a spike.
DC_INLINE void rotate(float* __restrict__ y, int64_t padded) {
  Mask16 lane;
  for (int i = 0; i < 16; ++i) lane[i] = i;
  for (int64_t j = 0; j < padded; j += 16) {
    Vec16 v;
    load(y + j, v);
    const Mask16 word = Mask16{} + static_cast<int32_t>(mix_bits(static_cast<uint64_t>(j)) & 0xffff);
    const Mask16 flip = (word >> lane) & 1;
    v = flip != 0 ? -v : v;
    store(y + j, v);
  }
  int64_t size = 16;
  while (2 * size <= padded) size *= 2;
  hadamard(y, size);
  if (size < padded) hadamard(y + padded - size, size);
}

// y = x - mean in float, zero up to whole vectors, and turned where `turned`; its squared norm and largest entry.
template <typename T>
DC_INLINE void centre(const T* __restrict__ x, const T* __restrict__ mean, int64_t d, bool turned,
                      float* __restrict__ y, float& square, float& largest) {
  const int64_t padded = round_up(d, 16);
  for (int64_t j = 0; j < d; ++j) y[j] = static_cast<float>(x[j] - mean[j]);
  for (int64_t j = d; j < padded; ++j) y[j] = 0.0f;
  if (turned) rotate(y, padded);
  Vec16 sum = {}, most = {};
  for (int64_t j = 0; j < padded; j += 16) {
    Vec16 v;
    load(y + j, v);
    sum += v * v;
    const Vec16 absolute = v < 0.0f ? -v : v;
    most = absolute > most ? absolute : most;
  }
  square = sum_lanes(sum);
  largest = 0.0f;
  for (int i = 0; i < 16; ++i) largest = std::max(largest, most[i]);
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
    centre(points.x + i * points.d, points.mean, points.d, points.turned(), row.get(), square, largest);
    const float norm = std::sqrt(square) * kSafe;
    CodeBounds& bounds = points.bounds[i];
    // y itself is x - mean rounded, and turned in float.
    bounds = {1.0f, norm, 2.0f * kRounding * norm, 0};
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
      centre(coded.centroids + k * d, points.mean, d, points.turned(), row, square, largest);
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
