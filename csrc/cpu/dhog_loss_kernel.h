// dhog_loss on the CPU: every pull and push joint of A augmentations and H heads, then all their gradients at once.
//
//   pooled    pull_i    = sum_{a < b} Z_ai^T Z_bi      one joint a head: with its transpose, all ordered pairs
//   mean      pull_i,ab = Z_ai^T Z_bi, a < b           A (A - 1) / 2 joints a head
//   push_ij   = sum_a Z_ai^T Z_aj, j < i               the strictly lower blocks of one Gram matrix
// The pooled pull is taken as sum_a Z_ai^T (sum_{b > a} Z_bi) and not as S^T S - sum_a Z_a^T Z_a: nothing cancels, so
// an empty entry stays exactly 0.
//
// Backward, with the weighted gradients of the joints in G:
//   pooled    dZ_ai = (sum_{b != a} Z_bi) G_i + sum_{j < i} Z_aj G_ij^T      (G_i symmetric)
//   mean      dZ_ai = sum_{b != a} Z_bi G_i,ab + the same push
//
// Views are first gathered with their heads side by side, W_a [n, H C]: ten clusters a head would fill ten lanes of a
// vector, eight heads side by side fill five whole ones. Traffic: probs once, W a few times from the second-level
// cache; work: about A n (H C)^2 / 2 multiply-adds each way, which bounds it. A task is one view of one chunk of rows;
// partial joints are added in task order.
#pragma once

#include <algorithm>
#include <cstring>

#include "../common/buffer.h"
#include "product_kernel.h"

namespace deepclust::cpu {

inline constexpr int64_t kDhogChunkRows = 512;
inline constexpr int64_t kDhogMaxChunks = 8;

struct DhogPlan {
  int64_t views, heads, n, classes;
  bool pooled;
  int64_t lanes;
  int64_t class_ld;  // classes rounded up to whole vectors: a row of one joint
  int64_t width;     // heads * classes
  int64_t ld;        // width rounded up to whole vectors: a row of W or of the Gram matrix
  int64_t chunk_rows, chunks;

  DhogPlan(int64_t views, int64_t heads, int64_t n, int64_t classes, bool pooled, int64_t lanes)
      : views(views), heads(heads), n(n), classes(classes), pooled(pooled), lanes(lanes) {
    class_ld = round_up(classes, lanes);
    width = heads * classes;
    ld = round_up(width, lanes);
    chunk_rows = std::max(kDhogChunkRows, round_up((n + kDhogMaxChunks - 1) / kDhogMaxChunks, kDhogChunkRows));
    chunks = std::max<int64_t>(1, (n + chunk_rows - 1) / chunk_rows);
  }
  int64_t tasks() const { return views * chunks; }
  int64_t work() const { return views * n * width * (ld / 2 + class_ld); }
  // W of all views, with room for one vector behind the last row, which products of unaligned columns may read.
  int64_t wide_size() const { return views * n * ld + lanes; }
  // Joints a head: one pooled over all view pairs, or one a pair a < b.
  int64_t pull_pairs() const { return pooled ? 1 : views * (views - 1) / 2; }
  int64_t pair(int64_t a, int64_t b) const { return pooled ? 0 : a * views - a * (a + 1) / 2 + b - a - 1; }
  // What a task writes: the Gram matrix [H C, ld], then the pull joints [H, pairs, C, class_ld].
  int64_t push_size() const { return width * ld; }
  int64_t pull_stride() const { return classes * class_ld; }
  int64_t partial_size() const { return push_size() + heads * pull_pairs() * pull_stride(); }

  int64_t first_row(int64_t task) const { return task / views * chunk_rows; }
  int64_t last_row(int64_t task) const { return std::min(n, first_row(task) + chunk_rows); }
};

// C elements between places that may overlap neighbours: in the largest fixed pieces, the last one moved back.
template <typename T>
DC_INLINE void copy_row(T* out, const T* in, int64_t size) {
  const auto pieces = [&](auto piece) DC_INLINE_LAMBDA {
    constexpr int64_t kPiece = decltype(piece)::value;
    for (int64_t i = 0; i + kPiece < size; i += kPiece) std::memcpy(out + i, in + i, kPiece * sizeof(T));
    std::memcpy(out + size - kPiece, in + size - kPiece, kPiece * sizeof(T));
  };
  if (size >= 8)
    pieces(std::integral_constant<int64_t, 8>{});
  else if (size >= 4)
    pieces(std::integral_constant<int64_t, 4>{});
  else
    pieces(std::integral_constant<int64_t, 1>{});
}

template <typename T>
struct Probs {
  const T* data;  // [A, H, n, C]
  int64_t view_stride, head_stride, row_stride, col_stride;
};

// W_a for the task's view and rows: wide [A, n, ld].
template <typename T>
void gather_task(const DhogPlan& plan, const Probs<T>& probs, int64_t task, T* wide) {
  const int64_t a = task % plan.views, first = plan.first_row(task), last = plan.last_row(task);
  T* rows = wide + a * plan.n * plan.ld;
  for (int64_t head = 0; head < plan.heads; ++head) {
    const T* source = probs.data + a * probs.view_stride + head * probs.head_stride + first * probs.row_stride;
    T* target = rows + first * plan.ld + head * plan.classes;
    for (int64_t row = first; row < last; ++row, source += probs.row_stride, target += plan.ld) {
      if (probs.col_stride == 1)
        copy_row(target, source, plan.classes);
      else
        for (int64_t c = 0; c < plan.classes; ++c) target[c] = source[c * probs.col_stride];
    }
  }
  for (int64_t row = first; row < last; ++row)
    std::fill(rows + row * plan.ld + plan.width, rows + (row + 1) * plan.ld, T(0));
}

// out [rows, ld] = sum, in order of b, of W_b over the views b >= first_view but `skip`.
template <typename T>
void sum_views(const DhogPlan& plan, const T* wide, int64_t first_view, int64_t skip, int64_t begin, int64_t end,
               T* __restrict__ out) {
  const int64_t size = (end - begin) * plan.ld;
  bool started = false;
  for (int64_t b = first_view; b < plan.views; ++b) {
    if (b == skip) continue;
    const T* __restrict__ source = wide + (b * plan.n + begin) * plan.ld;
    if (started)
      for (int64_t i = 0; i < size; ++i) out[i] += source[i];
    else
      std::memcpy(out, source, sizeof(T) * static_cast<size_t>(size));
    started = true;
  }
}

// joints[head * stride] [C, class_ld] (+)= left_head^T right_head for every head; left, right [rows, ld].
// The columns past C hold what lies beside the head and must be cleared before use.
template <typename T>
void pull_products(const DhogPlan& plan, int64_t rows, const T* left, const T* right, T* joints, int64_t stride) {
  const Panels<T> operand = row_major_panels(right, rows, plan.ld);
  for (int64_t head = 0; head < plan.heads; ++head) {
    const int64_t col = head * plan.classes;
    product(Matrix<const T>{left + col, rows, plan.classes, plan.ld, 1}, operand, col, col + plan.classes,
            joints + head * stride, plan.class_ld, true);
  }
}

// One task: the joints of view a = task % A with itself (push) and with the views after it (pull).
template <typename T>
void dhog_forward_task(const DhogPlan& plan, const T* wide, int64_t task, T* partial) {
  const int64_t a = task % plan.views, first = plan.first_row(task), last = plan.last_row(task);
  const Buffer<T> sum(std::min(kDhogChunkRows, std::max<int64_t>(1, last - first)) * plan.ld + plan.lanes);
  T* pull = partial + plan.push_size();
  const int64_t pull_stride = plan.pull_pairs() * plan.pull_stride();
  std::fill(partial, partial + plan.partial_size(), T(0));

  for (int64_t begin = first; begin < last; begin += kDhogChunkRows) {
    const int64_t end = std::min(last, begin + kDhogChunkRows), rows = end - begin;
    const T* view = wide + (a * plan.n + begin) * plan.ld;
    const Panels<T> operand = row_major_panels(view, rows, plan.ld);
    // Eight rows of the Gram matrix at a time, up to the last column that any of them needs.
    for (int64_t row = plan.classes; row < plan.width; row += 8) {
      const int64_t count = std::min<int64_t>(8, plan.width - row);
      const int64_t columns = (row + count - 1) / plan.classes * plan.classes;
      product(Matrix<const T>{view + row, rows, count, plan.ld, 1}, operand, 0, columns, partial + row * plan.ld,
              plan.ld, true);
    }
    if (!plan.pooled) {
      for (int64_t b = a + 1; b < plan.views; ++b)
        pull_products(plan, rows, view, wide + (b * plan.n + begin) * plan.ld,
                      pull + plan.pair(a, b) * plan.pull_stride(), pull_stride);
    } else if (a + 1 < plan.views) {
      sum_views(plan, wide, a + 1, a, begin, end, sum.get());
      pull_products(plan, rows, view, sum.get(), pull, pull_stride);
    }
  }
}

// dZ of view a = task % A; grad [A, H, n, C] contiguous. The upstream gradient is in push and pull already.
// push [H C, ld]: G_ij^T in block (j, i), j < i; pull [pairs, H C, ld]: G_i in block (i, i).
template <typename T>
void dhog_backward_task(const DhogPlan& plan, const T* wide, int64_t task, const T* push, const T* pull, T* grad) {
  constexpr int64_t kRows = 128;  // a tile of the gradient, and its operands, stay in the second-level cache
  const int64_t a = task % plan.views, first = plan.first_row(task), last = plan.last_row(task);
  const Buffer<T> sum(kRows * plan.ld), tile(kRows * plan.ld + plan.lanes);
  const Panels<T> push_operand = row_major_panels(push, plan.width, plan.ld);

  for (int64_t begin = first; begin < last; begin += kRows) {
    const int64_t end = std::min(last, begin + kRows), rows = end - begin;
    const T* view = wide + (a * plan.n + begin) * plan.ld;
    // A panel of columns needs the heads before its last one.
    for (int64_t col = 0; col < plan.ld; col += Panels<T>::kPanel) {
      const int64_t stop = std::min(plan.ld, col + Panels<T>::kPanel);
      const int64_t depth = (std::min(plan.width, stop) - 1) / plan.classes * plan.classes;
      product(Matrix<const T>{view, depth, rows, 1, plan.ld}, push_operand, col, stop, tile.get() + col, plan.ld,
              false);
    }
    const auto add_pull = [&](const T* others, const T* gradients) {
      for (int64_t col = 0; col < plan.width; col += plan.lanes) {
        // The heads that share this vector of columns.
        const int64_t from = col / plan.classes * plan.classes;
        const int64_t to = std::min(plan.width, round_up(std::min(plan.width, col + plan.lanes), plan.classes));
        product(Matrix<const T>{others + from, to - from, rows, 1, plan.ld},
                row_major_panels(gradients + from * plan.ld, to - from, plan.ld), col, col + plan.lanes,
                tile.get() + col, plan.ld, true);
      }
    };
    if (plan.pooled) {
      sum_views(plan, wide, 0, a, begin, end, sum.get());
      add_pull(sum.get(), pull);
    } else {
      for (int64_t b = 0; b < plan.views; ++b)
        if (b != a)
          add_pull(wide + (b * plan.n + begin) * plan.ld,
                   pull + plan.pair(std::min(a, b), std::max(a, b)) * plan.width * plan.ld);
    }
    for (int64_t head = 0; head < plan.heads; ++head) {
      T* target = grad + ((a * plan.heads + head) * plan.n + begin) * plan.classes;
      const T* source = tile.get() + head * plan.classes;
      for (int64_t row = 0; row < rows; ++row, target += plan.classes, source += plan.ld)
        copy_row(target, source, plan.classes);
    }
  }
}

}  // namespace deepclust::cpu
