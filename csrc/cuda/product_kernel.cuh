// Many thin matrix products in one launch: out(m, n) = sum over segments and k of A(k, m) B(k, n).
//
// A block of 256 threads owns one tile of one product and walks through its k. Both operands' pieces lie in shared
// memory as [depth][tile]; a thread keeps 4 x 4 sums in registers, 16 multiply-adds for two 16-byte reads.
//   tile 64 (wide joints):  16 x 16 threads cover the tile, depth 16.
//   tile 32 (the usual ten or twenty clusters): 8 x 8 threads cover it, so four slices of 64 threads share the depth
//   of 32, each every fourth step, and are added in slice order at the end. A joint of 10 x 10 leaves most of a tile
//   idle, but such a launch lasts as long as its longest chain of dependent steps, which the slices cut in four.
// The next piece, of the next segment too, is fetched into registers while the present one is multiplied.
//
// On an H100 the multiply-adds of tile 64 take 32 cycles a step on one multiprocessor and its shared-memory reads 16:
// arithmetic bounds it, at about half of 67 TFLOP/s by estimate, with the fetches in between. The operands come from
// memory once a tile of the other side: C / 64 times, mostly from the second-level cache. Global reads: neighbouring
// lanes read neighbouring elements of a row (16 bytes a lane where rows allow it). An operand that lies the other way,
// k fastest, is read 8 k by 4 rows a warp: whole 32-byte sectors, and the writes to shared memory, 4 elements of
// padding a row, fall on 32 different banks.
#pragma once

#include "../common/accumulator.h"
#include "../common/half.h"
#include "reduce.cuh"

namespace deepclust::cuda {

// Which index of an operand runs along its rows in memory: known when compiling, or seen from the strides.
enum class Fastest { kM, kK, kEither };

// A matrix seen as (k, m).
template <typename E, Fastest kFastest>
struct Operand {
  using Element = E;
  const E* data;
  int64_t stride;  // of the index that is not the fastest
  int64_t size_m;
  bool k_runs = kFastest == Fastest::kK;  // k is the fastest

  DC_DEVICE bool k_fastest() const { return kFastest == Fastest::kEither ? k_runs : kFastest == Fastest::kK; }
  DC_DEVICE const E* at(int64_t k, int64_t m) const { return data + (k_fastest() ? m * stride + k : k * stride + m); }
  DC_DEVICE accumulator_t<E> value(const E* element) const { return read(*element); }
  template <int kVec>
  DC_DEVICE void values(const E* element, accumulator_t<E> (&out)[kVec]) const {
    const Vector<E, kVec> stored = load_vec<kVec>(element);
    DC_UNROLL
    for (int i = 0; i < kVec; ++i) out[i] = read(stored.value[i]);
  }
};

// The sum of some matrices on a circle, added while they are read: `terms` of `views`, from `first` on.
template <typename E, Fastest kFastest>
struct SumOperand : Operand<E, kFastest> {
  int first = 0, terms = 1, views = 1;
  int64_t view_stride = 0;

  DC_DEVICE int64_t term(int t) const { return (first + t) % views * view_stride; }
  DC_DEVICE accumulator_t<E> value(const E* element) const {
    accumulator_t<E> sum = 0;
    for (int t = 0; t < terms; ++t) sum += read(element[term(t)]);
    return sum;
  }
  template <int kVec>
  DC_DEVICE void values(const E* element, accumulator_t<E> (&out)[kVec]) const {
    DC_UNROLL
    for (int i = 0; i < kVec; ++i) out[i] = 0;
    for (int t = 0; t < terms; ++t) {
      const Vector<E, kVec> stored = load_vec<kVec>(element + term(t));
      DC_UNROLL
      for (int i = 0; i < kVec; ++i) out[i] += read(stored.value[i]);
    }
  }
};

// One run of k through a product; the sums go on from segment to segment.
template <typename A, typename B>
struct Segment {
  A a;
  B b;
  int64_t k_begin, k_end;
};

template <int kTile>
struct TileShape {
  static constexpr int kSide = kTile / 4;  // threads along one side of the tile
  static constexpr int kSlices = kThreads / (kSide * kSide);
  static constexpr int kDepth = 1024 / kTile;  // four elements a thread of each operand
  static constexpr int kPitch = kTile + 4;
  static constexpr int kLoads = kDepth * kTile / kThreads;
};

// Where the i-th of a thread's elements of an operand's piece lies.
template <int kTile, int kVec>
struct Place {
  int k, m;
  DC_DEVICE Place(int i, bool k_fastest) {
    const int thread = static_cast<int>(threadIdx.x);
    if (kVec > 1) {
      k = thread / (kTile / kVec);
      m = thread % (kTile / kVec) * kVec;
      return;
    }
    const int e = thread + i * kThreads;
    k = k_fastest ? e / (8 * kTile) * 8 + e % 8 : e / kTile;
    m = k_fastest ? e / 8 % kTile : e % kTile;
  }
};

template <typename T, int kTile, int kVec, typename Op>
DC_DEVICE void fetch(const Op& operand, int64_t k0, int64_t k_end, int64_t m0, T (&next)[TileShape<kTile>::kLoads]) {
  if constexpr (kVec > 1) {
    static_assert(kVec == TileShape<kTile>::kLoads);
    const Place<kTile, kVec> place(0, false);
    const int64_t k = k0 + place.k, m = m0 + place.m;
    if (k < k_end && m < operand.size_m) return operand.values(operand.at(k, m), next);
    DC_UNROLL
    for (int i = 0; i < kVec; ++i) next[i] = T(0);
  } else {
    DC_UNROLL
    for (int i = 0; i < TileShape<kTile>::kLoads; ++i) {
      const Place<kTile, kVec> place(i, operand.k_fastest());
      const int64_t k = k0 + place.k, m = m0 + place.m;
      next[i] = k < k_end && m < operand.size_m ? operand.value(operand.at(k, m)) : T(0);
    }
  }
}

template <typename T, int kTile, int kVec>
DC_DEVICE void place(const T (&next)[TileShape<kTile>::kLoads], bool k_fastest, T* tile) {
  constexpr int kPitch = TileShape<kTile>::kPitch;
  DC_UNROLL
  for (int i = 0; i < TileShape<kTile>::kLoads; ++i) {
    const Place<kTile, kVec> place(i, k_fastest);
    tile[place.k * kPitch + place.m + (kVec > 1 ? i : 0)] = next[i];
  }
}

// Four neighbouring elements of shared memory in 16-byte reads.
template <typename T>
DC_DEVICE void read_four(const T* from, T (&to)[4]) {
  constexpr int kWidth = 16 / sizeof(T);
  DC_UNROLL
  for (int i = 0; i < 4; i += kWidth) {
    const Vector<T, kWidth> part = load_vec<kWidth>(from + i);
    DC_UNROLL
    for (int j = 0; j < kWidth; ++j) to[i + j] = part.value[j];
  }
}

// The sums over all of a tile's segments. All threads must call it.
template <typename T, int kTile, int kVec, typename Source, typename Tile>
DC_DEVICE void accumulate(const Source& source, const Tile& tile, T* a_tile, T* b_tile, T (&sum)[4][4]) {
  using Shape = TileShape<kTile>;
  const int thread = static_cast<int>(threadIdx.x) % (Shape::kSide * Shape::kSide);
  const int slice = static_cast<int>(threadIdx.x) / (Shape::kSide * Shape::kSide);
  const int m = thread / Shape::kSide * 4, n = thread % Shape::kSide * 4;
  T a_next[Shape::kLoads], b_next[Shape::kLoads];
  auto segment = source.segment(tile, 0);
  int64_t k = segment.k_begin;
  fetch<T, kTile, kVec>(segment.a, k, segment.k_end, tile.m0, a_next);
  fetch<T, kTile, kVec>(segment.b, k, segment.k_end, tile.n0, b_next);
  for (int s = 0; s < tile.segments;) {
    place<T, kTile, kVec>(a_next, segment.a.k_fastest(), a_tile);
    place<T, kTile, kVec>(b_next, segment.b.k_fastest(), b_tile);
    DC_SYNC();
    const int64_t left = segment.k_end - k;
    const int depth = left < Shape::kDepth ? static_cast<int>(left) : Shape::kDepth;
    k += Shape::kDepth;
    if (k >= segment.k_end && ++s < tile.segments) {
      segment = source.segment(tile, s);
      k = segment.k_begin;
    }
    if (s < tile.segments) {
      fetch<T, kTile, kVec>(segment.a, k, segment.k_end, tile.m0, a_next);
      fetch<T, kTile, kVec>(segment.b, k, segment.k_end, tile.n0, b_next);
    }
    DC_UNROLL_BY(4)
    for (int d = slice; d < depth; d += Shape::kSlices) {
      T a[4], b[4];
      read_four(a_tile + d * Shape::kPitch + m, a);
      read_four(b_tile + d * Shape::kPitch + n, b);
      DC_UNROLL
      for (int i = 0; i < 4; ++i) {
        DC_UNROLL
        for (int j = 0; j < 4; ++j) sum[i][j] += a[i] * b[j];
      }
    }
    DC_SYNC();  // the pieces are free again
  }
}

// Adds the slices' sums into slice 0's, in slice order.
template <typename T, int kTile>
DC_DEVICE void add_slices(T (&sum)[4][4]) {
  using Shape = TileShape<kTile>;
  if constexpr (Shape::kSlices > 1) {
    constexpr int kCover = Shape::kSide * Shape::kSide;
    DC_SHARED(T, slices, (Shape::kSlices - 1) * 16 * kCover);  // [slice - 1][element][thread]
    const int thread = static_cast<int>(threadIdx.x) % kCover, slice = static_cast<int>(threadIdx.x) / kCover;
    if (slice > 0) {
      DC_UNROLL
      for (int e = 0; e < 16; ++e) slices[((slice - 1) * 16 + e) * kCover + thread] = sum[e / 4][e % 4];
    }
    DC_SYNC();
    if (slice > 0) return;
    for (int other = 0; other < Shape::kSlices - 1; ++other) {
      DC_UNROLL
      for (int e = 0; e < 16; ++e) sum[e / 4][e % 4] += slices[(other * 16 + e) * kCover + thread];
    }
  }
}

// Two blocks a multiprocessor hide each other's fetches; double is content with one and its 255 registers a thread.
template <typename Source>
inline constexpr int kBlocksAtOnce = sizeof(typename Source::T) == sizeof(double) ? 1 : 2;

// A Source says what the products are:
//   Source::T                           what is summed in
//   auto tile = source.tile<kTile>()    this block's tile: .m0, .n0, .rows, .cols (of the whole product), .segments
//   (one
//                                       at least)
//   source.segment(tile, s)             its s-th Segment
//   source.store(tile, m, n, sum)       where a result goes
template <typename Source, int kTile, int kVec>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads, kBlocksAtOnce<Source>) products(const Source source) {
  using T = typename Source::T;
  using Shape = TileShape<kTile>;
  DC_SHARED(T, a_tile, Shape::kDepth * Shape::kPitch);
  DC_SHARED(T, b_tile, Shape::kDepth * Shape::kPitch);
  T sum[4][4] = {};
  const auto tile = source.template tile<kTile>();
  accumulate<T, kTile, kVec>(source, tile, a_tile, b_tile, sum);
  add_slices<T, kTile>(sum);

  const int thread = static_cast<int>(threadIdx.x);
  if (thread >= Shape::kSide * Shape::kSide) return;
  const int64_t m = tile.m0 + thread / Shape::kSide * 4, n = tile.n0 + thread % Shape::kSide * 4;
  DC_UNROLL
  for (int i = 0; i < 4; ++i) {
    DC_UNROLL
    for (int j = 0; j < 4; ++j)
      if (m + i < tile.rows && n + j < tile.cols) source.store(tile, m + i, n + j, sum[i][j]);
  }
}

// Whether rows of `cols` elements from `data` on begin on bounds of four: 16 bytes of float32, 8 of a half type.
inline bool rows_start_on_vectors(const void* data, int64_t cols) {
  return cols % 4 == 0 && reinterpret_cast<std::uintptr_t>(data) % 16 == 0;
}

// Launches `source` over its blocks. `vectors`: rows of both operands start on 4-element bounds, m fastest.
template <bool kMayVectorise, typename Source>
void launch_products(const Source& source, int tile, bool vectors, int64_t blocks, Stream stream) {
  if (blocks == 0) return;
  const auto run = [&](auto* kernel) { DC_LAUNCH(kernel, static_cast<unsigned>(blocks), kThreads, 0, stream)(source); };
  if (tile == 32) return run(&products<Source, 32, 1>);
  if constexpr (sizeof(typename Source::T) == sizeof(float)) {
    if constexpr (kMayVectorise)
      if (vectors) return run(&products<Source, 64, 4>);
    run(&products<Source, 64, 1>);
  }
}

}  // namespace deepclust::cuda
