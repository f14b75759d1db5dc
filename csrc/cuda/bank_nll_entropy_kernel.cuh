// Softmax of a memory bank on the GPU: negative log-likelihood and entropy of every query, with their gradients.
//
//   l_j = v . m_j / temperature,   p = softmax(l) over all N rows,   p~ = the same without row `index`
//   nll     = -log sum_{j in S} p_j,                   S = {index} and the neighbours, as a set
//   entropy = -sum_{j != index} p~_j log p~_j
//
// The rows outside of S, the rest R, are streamed once, as attention streams keys that are the values too. With M the
// largest logit so far and t_j = l_j - M, kept are
//
//   mass = sum e^t_j,   moment = sum e^t_j t_j,   rows = sum e^t_j m_j,   moment_rows = sum e^t_j t_j m_j,
//
// and a larger maximum, by -s, turns them into e^s mass, e^s (moment + s mass), and likewise for the rows. S is small:
// its logits are computed on their own and join at the end. No difference of nearly equal sums is ever formed, so that
// gradients keep their digits where p(S) comes near 1:
//
//   x = log-sum-exp(R) - log-sum-exp(S),   nll = log(1 + e^x)
//   d nll / dv     = (mean of R's rows - mean of S's rows) / (1 + e^-x) / temperature,   means weighted by p
//   entropy        = log(mass) - moment / mass                                           of R and S without the index
//   d entropy / dv = -(moment_rows - moment / mass rows) / mass / temperature.
//
// A block owns 64 queries, one of `splits` ranges of the bank (a function of the sizes alone) and one panel of columns.
// For each 64 rows of its range:
//   1. logits of the tile: row_tile.cuh, 4 x 4 a thread, the 16 threads of a query neighbouring lanes;
//   2. the maximum of a query by shuffles; e^t and e^t t into shared memory as [row][query], in blocks of four queries
//      whose places are exchanged by row / 4 (XOR): a warp's writes fall on different banks;
//   3. [64 queries] x [panel] += weights^T x rows, with 4 x 8 sums a thread for each kind of weight, of the same four
//      queries as in 1: a new maximum rescales registers. The rows pass through shared memory 16 at a time.
// Ranges leave their sums in the workspace, and one block a query adds them in the order of the ranges
// (bank_finish_kernel.cuh). A panel has 128 columns (64 of float64). A deeper bank takes a block for each panel, which
// computes the logits again: at depth 512 that is 2.5 times (nll) or twice (both gradients) the least arithmetic.
//
// Estimates for an H100 at 500,000 x 128, 128 queries, float32: 256 MB of the bank pass from memory once, 76 us, for
// the two tiles of queries walk side by side and the second finds its rows in the second-level cache (16-bit banks:
// half). The products are 16.4 GFLOP each: logits alone 0.24 ms at 67 TFLOP/s, with the nll's gradient 0.49 ms, with
// both gradients 0.73 ms. Arithmetic bounds it, by 3 to 10 times; powers and shuffles add some percent. Shared memory
// keeps it from the peak: logits take two 16-byte reads for 16 multiply-adds of a thread, which is half of the peak;
// weighted rows three for 32 (two thirds), or four for 64 with both weights (all of it). That makes 0.5, 0.85 and 1.0
// ms, before what barriers cost, which is more with both weights: their 64 sums leave room for one block of 8 warps a
// multiprocessor. The ranges' sums are at most 17 MB, some 10 us. Products on tensor cores, in pieces of bfloat16 that
// keep float32's digits, could be a few times as fast; they would need a tile of their own.
#pragma once

#include "bank_nll_entropy.h"
#include "reduce.cuh"
#include "row_tile.cuh"

namespace deepclust::cuda {

DC_DEVICE float exp_of(float x) {
  return expf(x);
}
DC_DEVICE double exp_of(double x) {
  return exp(x);
}
DC_DEVICE float log_of(float x) {
  return logf(x);
}
DC_DEVICE double log_of(double x) {
  return log(x);
}
DC_DEVICE float log1p_of(float x) {
  return log1pf(x);
}
DC_DEVICE double log1p_of(double x) {
  return log1p(x);
}

// A maximum over nothing.
template <typename T>
DC_DEVICE T lowest() {
  return -static_cast<T>(INFINITY);
}

// What to add to exponents that were relative to `from` and become relative to `to`; 0 where nothing has been summed.
template <typename T>
DC_DEVICE T shift_of(T from, T to) {
  return from == lowest<T>() ? T(0) : from - to;
}

// The queries' sets S, entry by entry: the index first, then the neighbours.
struct BankSets {
  const int64_t* index;      // [queries], -1: none
  const int64_t* neighbors;  // [queries, count], negative: none
  int64_t count;

  DC_DEVICE int64_t row(int64_t query, int64_t entry) const {
    return entry == 0 ? index[query] : neighbors[query * count + entry - 1];
  }
};

// What the ranges hand over: relative to the range's largest logit. T is the accumulator's type.
template <typename T>
struct BankParts {
  T* largest;      // [splits, queries]
  T* mass;         // [splits, queries]
  T* moment;       // [splits, queries]
  T* rows;         // [splits, queries, depth]
  T* moment_rows;  // [splits, queries, depth]
  T* set_logits;   // [queries, 1 + neighbors]: -infinity where the entry is none, or an earlier one again
};

template <typename E>
struct BankTask {
  using T = accumulator_t<E>;
  BankPlan plan;
  T scale;        // 1 / temperature
  const T* v;     // [queries, depth]
  const E* bank;  // [rows, depth]
  BankSets sets;
  BankParts<T> parts;
};

// The tile of logits. Beside one sum of weighted rows, with two blocks a multiprocessor, registers are short.
template <int kWeighted>
struct LogitTile : RowTile<64, 64> {
  static constexpr int kUnroll = kWeighted == 1 ? 2 : 4;
};

template <typename T>
struct BankShape {
  using Tile = RowTile<64, 64>;
  static constexpr int kPanel = sizeof(T) == sizeof(double) ? 64 : 128;
  static constexpr int kGroups = kPanel / 64;                          // of four neighbouring columns a thread
  static constexpr int kPart = sizeof(T) == sizeof(double) ? 16 : 64;  // rows whose weights lie in shared memory
  static constexpr int kSlab = 16;                                     // rows that do
  static constexpr int kLoads = kSlab * kPanel / kThreads;
  static constexpr int kSlabMemory = Tile::kRowMemory + Tile::kColMemory;  // of row_tile; then of the rows
  static_assert(kSlab * kPanel <= kSlabMemory, "the rows lie where the slabs of row_tile were");
};

// Which of a thread's 4 x 4 pairs count: bit 4 i + j for query `query` + i and the row n0 + col + j, which must be one
// of the first `rows` from n0 on and outside of the query's set. Every lane of the warp must call it.
DC_DEVICE unsigned find_counting(const BankSets& sets, int64_t queries, int64_t query, int64_t n0, int rows, int col) {
  unsigned counting = 0;
  DC_UNROLL
  for (int j = 0; j < 4; ++j) counting |= col + j < rows ? 0x1111u << j : 0u;
  DC_UNROLL
  for (int i = 0; i < 4; ++i) {
    unsigned long long members = 0;  // of the set, among 64 rows; each of the query's 16 lanes looks at some entries
    if (query + i < queries) {
      for (int64_t entry = threadIdx.x % 16; entry <= sets.count; entry += 16) {
        const int64_t place = sets.row(query + i, entry) - n0;
        if (place >= 0 && place < 64) members |= 1ull << place;
      }
    }
    if (!__any_sync(kFullMask, members != 0)) continue;
    DC_UNROLL
    for (int step = 8; step > 0; step /= 2) members |= __shfl_xor_sync(kFullMask, members, step);
    counting &= ~(static_cast<unsigned>(members >> col & 0xf) << 4 * i);
  }
  return counting;
}

template <typename T>
DC_DEVICE void write_four(const T (&from)[4], T* to) {
  constexpr int kWidth = 16 / sizeof(T);
  DC_UNROLL
  for (int i = 0; i < 4; i += kWidth) {
    Vector<T, kWidth> part;
    DC_UNROLL
    for (int j = 0; j < kWidth; ++j) part.value[j] = from[i + j];
    store_vec<kWidth>(to + i, part);
  }
}

// Where the weights of row n (of the tile) and of four queries from 4 * four on lie, in shared memory of `kPart` rows.
template <int kPart>
DC_DEVICE int weight_place(int n, int four) {
  return n % kPart * 64 + (four ^ (n / 4)) * 4;
}

template <typename E, typename T>
DC_DEVICE void fetch_rows(const RowsOf<E>& bank, int n0, int64_t d0, int64_t depth, T (&next)[BankShape<T>::kLoads]) {
  constexpr int kPanel = BankShape<T>::kPanel, kStep = kThreads / kPanel;
  const int64_t d = d0 + threadIdx.x % kPanel;
  const int n = n0 + static_cast<int>(threadIdx.x) / kPanel;
  const int left = d < depth ? static_cast<int>(bank.size_m) - n : 0;
  const E* from = bank.at(d, n);
  DC_UNROLL
  for (int i = 0; i < BankShape<T>::kLoads; ++i, from += kStep * depth)
    next[i] = i * kStep < left ? bank.value(from) : T(0);
}

// sums[w][g][i][j] += sum over kPart rows from n0 + first on of the w-th weight of query 4 * four + i, times column
// d0 + 64 g + Tile::col() + j of the row. Begins by showing all threads the weights, and ends with all memory free.
template <int kWeighted, typename E, typename T>
DC_DEVICE void add_rows(const RowsOf<E>& bank, int n0, int first, int64_t d0, int64_t depth, const T* weights, T* slab,
                        T (&sums)[kWeighted][BankShape<T>::kGroups][4][4]) {
  using Shape = BankShape<T>;
  constexpr int kPanel = Shape::kPanel;
  const int four = static_cast<int>(threadIdx.x) / 16, col = Shape::Tile::col();
  T next[Shape::kLoads];
  fetch_rows<E, T>(bank, n0 + first, d0, depth, next);
  DC_UNROLL_BY(1)
  for (int done = 0; done < Shape::kPart; done += Shape::kSlab) {
    DC_UNROLL
    for (int i = 0; i < Shape::kLoads; ++i) slab[threadIdx.x + i * kThreads] = next[i];
    DC_SYNC();
    if (done + Shape::kSlab < Shape::kPart) fetch_rows<E, T>(bank, n0 + first + done + Shape::kSlab, d0, depth, next);
    DC_UNROLL_BY(2)
    for (int n = 0; n < Shape::kSlab; ++n) {
      T weight[kWeighted][4];
      DC_UNROLL
      for (int w = 0; w < kWeighted; ++w)
        read_four(weights + w * Shape::kPart * 64 + weight_place<Shape::kPart>(first + done + n, four), weight[w]);
      DC_UNROLL
      for (int g = 0; g < Shape::kGroups; ++g) {
        T row[4];
        read_four(slab + n * kPanel + g * 64 + col, row);
        DC_UNROLL
        for (int w = 0; w < kWeighted; ++w) {
          DC_UNROLL
          for (int i = 0; i < 4; ++i) {
            DC_UNROLL
            for (int j = 0; j < 4; ++j) sums[w][g][i][j] = multiply_add(weight[w][i], row[j], sums[w][g][i][j]);
          }
        }
      }
    }
    DC_SYNC();  // the slab is free again, and after the last one the weights
  }
}

// (range of the bank, panel, tile of queries) to a block; the tiles of a range side by side, for they read the same
// rows. kWeighted: 0 no gradient, 1 `rows` alone, 2 with `moment_rows`.
template <typename E, int kWeighted>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads, sizeof(accumulator_t<E>) == sizeof(double) || kWeighted == 2 ? 1 : 2)
    stream_bank(const BankTask<E> task) {
  using T = accumulator_t<E>;
  using Shape = BankShape<T>;
  using Tile = typename Shape::Tile;
  DC_SHARED(T, slabs, Shape::kSlabMemory);
  const BankPlan& plan = task.plan;
  const unsigned tiles = static_cast<unsigned>((plan.queries + 63) / 64), place = blockIdx.x / tiles;
  const unsigned split = place / static_cast<unsigned>(plan.panels), panel = place % static_cast<unsigned>(plan.panels);
  const int64_t m0 = blockIdx.x % tiles * 64, begin = split * plan.split_rows, left = plan.rows - begin;
  const int rows = static_cast<int>(left < plan.split_rows ? left : plan.split_rows);
  // What is left of the queries from m0 on, and of the bank from `begin` on: 32 bits number it, for want of registers.
  const RowsOf<T> queries{task.v + m0 * plan.depth, plan.depth, plan.queries - m0};
  const RowsOf<E> bank{task.bank + begin * plan.depth, plan.depth, rows};

  T largest[4], mass[4], moment[4];
  DC_UNROLL
  for (int i = 0; i < 4; ++i) {
    largest[i] = lowest<T>();
    mass[i] = moment[i] = T(0);
  }
  constexpr int kSums = kWeighted > 0 ? kWeighted : 1;
  T sums[kSums][Shape::kGroups][4][4] = {};

  for (int n0 = 0; n0 < rows; n0 += 64) {
    T value[4][4], weight[4][4];  // the logit, then e^t t; e^t
    row_tile<RowValue::kProduct, LogitTile<kWeighted>, 1>(queries, 0, bank, n0, plan.depth, slabs,
                                                          slabs + Tile::kRowMemory, value);
    const int col = Tile::col();
    const unsigned counting = find_counting(task.sets, plan.queries, m0 + Tile::row(), begin + n0, rows - n0, col);
    DC_UNROLL
    for (int i = 0; i < 4; ++i) {
      T best = largest[i];
      DC_UNROLL
      for (int j = 0; j < 4; ++j) {
        value[i][j] *= task.scale;
        if ((counting >> (4 * i + j) & 1) != 0 && value[i][j] > best) best = value[i][j];
      }
      DC_UNROLL
      for (int step = 8; step > 0; step /= 2) {
        const T other = __shfl_xor_sync(kFullMask, best, step);
        if (other > best) best = other;
      }
      const T shift = shift_of(largest[i], best);
      if (shift != T(0)) {
        const T factor = exp_of(shift);
        if constexpr (kWeighted != 1) moment[i] = factor * (moment[i] + shift * mass[i]);
        mass[i] *= factor;
        if constexpr (kWeighted > 0) {
          DC_UNROLL
          for (int g = 0; g < Shape::kGroups; ++g) {
            DC_UNROLL
            for (int j = 0; j < 4; ++j) {
              if constexpr (kWeighted > 1) sums[1][g][i][j] = factor * (sums[1][g][i][j] + shift * sums[0][g][i][j]);
              sums[0][g][i][j] *= factor;
            }
          }
        }
      }
      largest[i] = best;
      DC_UNROLL
      for (int j = 0; j < 4; ++j) {
        const bool counts = (counting >> (4 * i + j) & 1) != 0;
        const T t = value[i][j] - best;
        weight[i][j] = counts ? exp_of(t) : T(0);
        mass[i] += weight[i][j];
        if constexpr (kWeighted != 1) {
          value[i][j] = counts ? weight[i][j] * t : T(0);
          moment[i] += value[i][j];
        }
      }
    }
    if constexpr (kWeighted > 0) {
      DC_SHARED(T, weights, kWeighted * Shape::kPart * 64);
      for (int first = 0; first < 64; first += Shape::kPart) {
        if (col / Shape::kPart == first / Shape::kPart) {
          DC_UNROLL
          for (int j = 0; j < 4; ++j) {
            T* const to = weights + weight_place<Shape::kPart>(col + j, Tile::row() / 4);
            const T e[4] = {weight[0][j], weight[1][j], weight[2][j], weight[3][j]};
            write_four(e, to);
            if constexpr (kWeighted > 1) {
              const T tilted[4] = {value[0][j], value[1][j], value[2][j], value[3][j]};
              write_four(tilted, to + Shape::kPart * 64);
            }
          }
        }
        add_rows<kWeighted, E, T>(bank, n0, first, int64_t{panel} * Shape::kPanel, plan.depth, weights, slabs, sums);
      }
    }
  }

  DC_UNROLL
  for (int i = 0; i < 4; ++i) {
    DC_UNROLL
    for (int step = 8; step > 0; step /= 2) {
      mass[i] += __shfl_xor_sync(kFullMask, mass[i], step);
      moment[i] += __shfl_xor_sync(kFullMask, moment[i], step);
    }
    const int64_t query = m0 + Tile::row() + i, at = split * plan.queries + query;
    if (query >= plan.queries) continue;
    if (panel == 0 && Tile::col() == 0) {
      task.parts.largest[at] = largest[i];
      task.parts.mass[at] = mass[i];
      task.parts.moment[at] = moment[i];
    }
    if constexpr (kWeighted > 0) {
      DC_UNROLL
      for (int g = 0; g < Shape::kGroups; ++g) {
        DC_UNROLL
        for (int j = 0; j < 4; ++j) {
          const int64_t d = int64_t{panel} * Shape::kPanel + g * 64 + Tile::col() + j;
          if (d >= plan.depth) continue;
          task.parts.rows[at * plan.depth + d] = sums[0][g][i][j];
          if constexpr (kWeighted > 1) task.parts.moment_rows[at * plan.depth + d] = sums[1][g][i][j];
        }
      }
    }
  }
}

}  // namespace deepclust::cuda
