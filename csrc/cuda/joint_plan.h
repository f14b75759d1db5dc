// How joints are cut into thread blocks, a function of the sizes alone, and the memory that takes.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../common/arithmetic.h"
#include "workspace.h"

namespace deepclust::cuda {

// The tile that suits a joint with `widest` clusters on its wider side. Double has the small one only: it is for
// checking gradients.
inline int tile_for(int64_t widest, bool is_double) {
  return is_double || widest <= 32 ? 32 : 64;
}

// Rows that one block of the product kernel sums: enough blocks for a large GPU (two on each of 128 multiprocessors),
// but partial joints of at most 2^17 entries together where that leaves 32 of them.
inline int64_t chunk_rows_for(int64_t n, int64_t tiles, int64_t joint_size) {
  const int64_t most = std::clamp<int64_t>((1 << 17) / joint_size, 32, 256);
  const int64_t wanted = std::clamp<int64_t>(256 / std::max<int64_t>(1, tiles), 1, most);
  return std::max<int64_t>(128, round_up(ceil_div(n, wanted), 32));
}

// A joint's rows in blocks: one where its partials are few enough for one multiprocessor.
struct JointCut {
  static constexpr int64_t kOneBlock = 1 << 16;  // entries read
  static constexpr int64_t kRows = 16;
  int64_t blocks = 1, block_rows = 0;

  JointCut() = default;
  JointCut(int64_t rows, int64_t cols, int64_t chunks) {
    const bool small = rows * cols <= kOneBlock / std::max<int64_t>(1, chunks);
    block_rows = small ? rows : kRows;
    blocks = ceil_div(rows, block_rows);
  }
};

// What the phases of `joints` joints keep between them.
template <typename T>
struct JointSpace {
  T* row_sums;         // [joints, rows]
  T* col_sums;         // [joints, blocks, cols]
  T* col_logs;         // [joints, blocks, cols]
  double* block_loss;  // [joints, blocks]

  JointSpace(Workspace& memory, int64_t joints, int64_t rows, int64_t cols, const JointCut& cut)
      : row_sums(memory.take<T>(joints * rows)),
        col_sums(memory.take<T>(joints * cut.blocks * cols)),
        col_logs(memory.take<T>(joints * cut.blocks * cols)),
        block_loss(memory.take<double>(joints * cut.blocks)) {}
};

}  // namespace deepclust::cuda
