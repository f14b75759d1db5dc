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

#include "bank_tile.cuh"
#include "reduce.cuh"

namespace deepclust::cuda {

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
