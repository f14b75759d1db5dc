// knn's filter on tensor cores: which candidates may be among a row's k best, by products of bfloat16 codes.
//
// A block owns 128 rows and some of the candidates, and walks through these in tiles of 128 x 128, the depth in slabs
// of 32: two buffers, the next slab copied while the present one is multiplied, one barrier a slab. Four warps of 64 x
// 64 pairs each. Where a pair's bound (row_codes_kernel.cuh) does not rule it out, it is noted, in places that belong
// to this block's rows alone; how many there are is counted in shared memory. In which order they are noted shows
// nowhere. A row that finds more than there are places is searched again without the filter.
//
// Slabs: 64 bytes a row, four pieces of 16, piece i of row r at i ^ (r / 2 % 4): the eight rows that a ldmatrix reads
// at once then lie on different banks.
//
// The candidates come in stages, each some times as many as all before (KnnFilterPlan), in an order that strides
// through the rows, so that data sorted by class is met as if shuffled. The first stage notes all; after each, the k-th
// smallest upper bound so far says what the next may leave out, so about (growth - 1) k pairs a row are noted in each.
//
// Estimate for an H100, a graph of 60,000 x 128, k = 20, from the instructions that nvcc makes: a warp's share of a
// tile takes 256 mma, 64 ldmatrix, and three instructions a pair and some addresses for the bounds, about 700. mma.sync
// reaches six tenths of the tensor cores' 990 TFLOP/s, 6.5 cycles each: 1700 cycles a tile, behind which the rest can
// hide, since a multiprocessor holds two blocks. 220,000 tiles: 1.5 ms if it hides, 3 ms if half of it does. Codes: 31
// MB read and 15 written, .02 ms. Stages: three, 60,000 blocks each, about 1 ms together; exact values of 25 to 30
// candidates a row, .8 GB, mostly from the second-level cache, and their order: .5 ms. Together 3 to 5 ms, where
// the plain kernel takes 58.6 on an H200. 1,000,000 x 128, k = 20: 61 M tiles, .4 s, and 61 times five stages: .5 to .8
// s, where it takes 13.3. Arithmetic bounds both; the tiles' 64 KB from the second-level cache are next, 4 TB/s.
// (132 multiprocessors at 1.755 GHz, four instructions a cycle each.)
//
// In a graph a pair's product could serve both of its rows. It is not worth it, by count:
//   - a row must have met the stages before, so only pairs within the last stage can be shared: (1 - b)^2 / 2 of all
//     products for a last stage that begins at share b, .38 at 60,000 (b = 1/8) and .34 at 1,000,000 (b = 1/5.6);
//   - each pair is still compared with two limits: 384 instructions a warp and tile for either side, and the second
//     side's limits and terms come from shared memory, some 130 reads, for all 251 registers are in use;
//   - what the second side finds belongs to other blocks' rows: 70 pairs a row, 4.2 million atomics that are waited for
//     and as many scattered writes of 32-byte sectors at 60,000, .1 to .2 ms.
// At 60,000 x 128 tiles take 1664 cycles of mma for 850 issued instructions; shared, .62 times as many mma, and 1.0
// times as many instructions: .9 to 1.6 ms in place of 1.5 to 3, of 3 to 5 in all, which becomes 2.5 to 4: 1.2 times
// as fast. At 1,000,000 it would be 1.3 times if all rows' places were in memory together, 1 GiB; in strips of 128 MiB
// only rows of one strip can share, 1.5 % of the pairs.
#pragma once

#include "row_codes_kernel.cuh"
#include "tensor_core.cuh"

namespace deepclust::cuda {

inline constexpr int kFilterThreads = 128;

// A pair that may be one of the best: twice the product of its codes, and the candidate's place.
struct alignas(8) FilterEntry {
  float twice;
  uint32_t position;
};

struct FilterStage {
  KnnFilterPlan plan;
  const BFloat16* rows;     // codes of the strip's rows
  const BFloat16* columns;  // codes of all candidates
  const ColumnTerms* terms;
  const RowLimit* limits;           // [strip_rows]
  FilterEntry* entries;             // [strip_rows, splits, slots]
  unsigned* counts;                 // [strip_rows, splits]
  int64_t row0, row_tiles;          // the strip's first row, and its tiles
  int64_t begin, end, split_tiles;  // the stage's candidates, and how many tiles of them a block takes
  const int32_t* done = nullptr;    // not 0: nothing is to be done
};

DC_DEVICE int slab_place(int row, int piece) {
  static_assert(KnnFilterPlan::kSlab == 32, "four pieces of 16 bytes a row");
  return row * KnnFilterPlan::kSlab + ((piece ^ (row / 2 % 4)) * 8);
}

// 128 rows' slab of codes.
DC_DEVICE void copy_slab(BFloat16* slab, const BFloat16* codes, int64_t code_depth) {
  DC_UNROLL
  for (int step = 0; step < 4; ++step) {
    const int e = step * kFilterThreads + static_cast<int>(threadIdx.x), row = e / 4, piece = e % 4;
    copy_async(slab + slab_place(row, piece), codes + row * code_depth + piece * 8);
  }
}

// Where the compiler would keep both halves of a slab in registers, it has too few of them.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
inline constexpr int kHalvesAtOnce = 1;
#else
inline constexpr int kHalvesAtOnce = 2;
#endif

// A warp's 64 x 64 products of one slab, added to `sums`: [16 rows][8 columns].
DC_DEVICE void multiply_slab(const BFloat16* row_slab, const BFloat16* col_slab, int row0, int col0,
                             float (&sums)[4][8][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  DC_UNROLL_BY(kHalvesAtOnce)
  for (int half = 0; half < 2; ++half) {  // sixteen of the depth
    uint32_t a[4][4];
    DC_UNROLL
    for (int i = 0; i < 4; ++i) {  // matrices: rows 0-7 and 8-15, then the same of the next eight of the depth
      const int row = row0 + i * 16 + lane % 16;
      load_matrices(row_slab + slab_place(row, 2 * half + lane / 16), a[i]);
    }
    DC_UNROLL
    for (int j = 0; j < 4; ++j) {  // columns 0-7, these of the next eight of the depth, then columns 8-15
      uint32_t b[4];
      const int col = col0 + j * 16 + lane / 16 * 8 + lane % 8;
      load_matrices(col_slab + slab_place(col, 2 * half + lane / 8 % 2), b);
      DC_UNROLL
      for (int i = 0; i < 4; ++i) {
        multiply_matrices(a[i], b[0], b[1], sums[i][2 * j]);
        multiply_matrices(a[i], b[2], b[3], sums[i][2 * j + 1]);
      }
    }
  }
}

// Where a block keeps two steps of its walk.
struct WalkMemory {
  static constexpr int kSlabs = 2 * KnnFilterPlan::kTile * KnnFilterPlan::kSlab, kTerms = 2 * KnnFilterPlan::kTile;
  BFloat16 *row_slab, *col_slab;  // [kSlabs]
  ColumnTerms* terms;             // [kTerms]
};

// A block's 128 rows against `count` candidates. For every tile of these, `on_tile(tile, terms, sums)` gets its number,
// the terms of its columns, and this thread's products: rows first_row() + 8 i, columns first_col() + 8 j + side at
// sums[i / 2][j][i % 2 * 2 + side].
struct TileWalk {
  int lane, warp_row, warp_col;
  DC_DEVICE TileWalk() {
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    lane = static_cast<int>(threadIdx.x) % kWarp;
    warp_row = warp / 2 * 64;
    warp_col = warp % 2 * 64;
  }
  DC_DEVICE int first_row() const { return warp_row + lane / 4; }
  DC_DEVICE int first_col() const { return warp_col + lane % 4 * 2; }

  template <typename OnTile>
  DC_DEVICE void run(const BFloat16* rows, const BFloat16* columns, const ColumnTerms* column_terms, int64_t count,
                     int64_t code_depth, const WalkMemory& memory, const OnTile& on_tile) const {
    constexpr int kTile = KnnFilterPlan::kTile, kSlab = KnnFilterPlan::kSlab;
    const int thread = static_cast<int>(threadIdx.x), slabs = static_cast<int>(code_depth / kSlab);
    const int steps = static_cast<int>(ceil_div(count, kTile)) * slabs;
    int slab = 0, tile = 0;  // of the step that is copied, and behind it of the one that is multiplied
    const auto copy_step = [&](int step) {
      const int buffer = step % 2 * kTile * kSlab;
      copy_slab(memory.row_slab + buffer, rows + slab * kSlab, code_depth);
      copy_slab(memory.col_slab + buffer, columns + tile * (kTile * code_depth) + slab * kSlab, code_depth);
      if (slab == 0 && thread < kTile / 2)
        copy_async(memory.terms + tile % 2 * kTile + 2 * thread, column_terms + tile * kTile + 2 * thread);
    };
    float sums[4][8][4] = {};
    if (steps > 0) copy_step(0);
    for (int step = 0; step < steps; ++step) {
      copy_wait();
      DC_SYNC();  // the slab is here, and nobody reads the other buffer any more
      const bool whole = slab == slabs - 1;
      const int done = tile, buffer = step % 2 * kTile * kSlab;
      slab = whole ? 0 : slab + 1;
      tile += whole ? 1 : 0;
      if (step + 1 < steps) copy_step(step + 1);
      multiply_slab(memory.row_slab + buffer, memory.col_slab + buffer, warp_row, warp_col, sums);
      if (!whole) continue;
      on_tile(done, memory.terms + done % 2 * kTile, sums);
      DC_UNROLL
      for (int e = 0; e < 128; ++e) sums[e / 32][e / 4 % 8][e % 4] = 0;
    }
  }
};

template <RowValue kValue>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kFilterThreads, 2) filter_candidates(const FilterStage stage) {
  constexpr int kTile = KnnFilterPlan::kTile;
  DC_SHARED(BFloat16, row_slab, WalkMemory::kSlabs);
  DC_SHARED(BFloat16, col_slab, WalkMemory::kSlabs);
  DC_SHARED(ColumnTerms, term_slab, WalkMemory::kTerms);
  DC_SHARED(RowLimit, limits, kTile);
  DC_SHARED(unsigned, found, kTile);
  if (stage.done != nullptr && *stage.done != 0) return;
  const KnnFilterPlan& plan = stage.plan;
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t split = blockIdx.x / stage.row_tiles, local0 = blockIdx.x % stage.row_tiles * kTile;
  const int64_t begin = stage.begin + split * stage.split_tiles * kTile;
  const int64_t ahead = begin + stage.split_tiles * kTile, end = ahead < stage.end ? ahead : stage.end;
  limits[thread] = stage.limits[local0 + thread];
  found[thread] = 0;
  // A block's own places; in 32 bits, where they fit, for want of registers.
  const int slots = static_cast<int>(plan.slots), row_places = static_cast<int>(plan.splits) * slots;
  FilterEntry* const entries = stage.entries + (local0 * plan.splits + split) * plan.slots;
  const auto last = static_cast<unsigned>(end);
  const int64_t left = plan.queries - stage.row0 - local0;
  const int rows_left = static_cast<int>(left < kTile ? left : kTile);
  // The place of the block's first row among the candidates, where a row must not find itself.
  const unsigned self0 = plan.graph ? static_cast<unsigned>(stage.row0 + local0) : 0xffff0000u;
  const TileWalk walk;
  const int row0 = walk.first_row(), col0 = walk.first_col();
  const auto on_tile = [&](int tile, const ColumnTerms* terms, const float (&sums)[4][8][4]) {
    const unsigned position0 = static_cast<unsigned>(begin) + static_cast<unsigned>(tile * kTile + col0);
    DC_UNROLL
    for (int j = 0; j < 8; ++j) {
      const ColumnTerms pair[2] = {terms[col0 + j * 8], terms[col0 + j * 8 + 1]};
      const auto passes = [&](int i, int side, float sum) {
        const RowLimit& limit = limits[row0 + i * 8];
        const float rest = kValue == RowValue::kSquaredDistance ? pair[side].a : limit.r * pair[side].a;
        return !(fmaf(2.0f, sum, fmaf(limit.p, pair[side].b, rest)) < limit.t);
      };
      bool any = false;
      DC_UNROLL
      for (int i = 0; i < 16; ++i) any |= passes(i / 2, i % 2, sums[i / 4][j][i % 4]);
      if (!any) continue;  // nearly always
      DC_UNROLL
      for (int i = 0; i < 16; ++i) {
        const float sum = unseen(sums[i / 4][j][i % 4]);
        const int row = row0 + i / 2 * 8;
        const unsigned position = position0 + static_cast<unsigned>(j * 8 + i % 2);
        const bool itself = position == self0 + static_cast<unsigned>(row);
        if (!passes(i / 2, i % 2, sum) || itself || position >= last || row >= rows_left) continue;
        const int place = static_cast<int>(atomicAdd(found + row, 1u));
        if (place < slots) entries[row * row_places + place] = {2 * sum, position};
      }
    }
  };
  walk.run(stage.rows + local0 * plan.code_depth, stage.columns + begin * plan.code_depth, stage.terms + begin,
           begin < end ? end - begin : 0, plan.code_depth, {row_slab, col_slab, term_slab}, on_tile);
  DC_SYNC();
  stage.counts[(local0 + thread) * plan.splits + split] = found[thread];
}

}  // namespace deepclust::cuda
