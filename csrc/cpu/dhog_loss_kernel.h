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
// As an operand, a view has its heads side by side, each padded to whole vectors, so that three heads of ten clusters
// share a panel. Traffic: probs about A / 2 times from cache; work: A n (H C)^2 / 2 multiply-adds each way, which
// bounds it. A task is one view of one chunk of rows; partial joints are added in task order.
#pragma once

#include <algorithm>

#include "../common/buffer.h"
#include "product_kernel.h"

namespace deepclust::cpu {

inline constexpr int64_t kDhogChunkRows = 512;
inline constexpr int64_t kDhogMaxChunks = 8;

struct DhogPlan {
  int64_t views, heads, n, classes;
  bool pooled;
  int64_t class_ld;  // classes rounded up to whole vectors
  int64_t ld;        // heads * class_ld
  int64_t chunk_rows, chunks;

  DhogPlan(int64_t views, int64_t heads, int64_t n, int64_t classes, bool pooled, int64_t lanes)
      : views(views), heads(heads), n(n), classes(classes), pooled(pooled) {
    class_ld = round_up(classes, lanes);
    ld = heads * class_ld;
    chunk_rows = std::max(kDhogChunkRows, round_up((n + kDhogMaxChunks - 1) / kDhogMaxChunks, kDhogChunkRows));
    chunks = std::max<int64_t>(1, (n + chunk_rows - 1) / chunk_rows);
  }
  int64_t tasks() const { return views * chunks; }
  int64_t work() const { return views * n * heads * classes * (ld / 2 + class_ld); }
  // Joints a head: one pooled over all view pairs, or one a pair a < b.
  int64_t pull_pairs() const { return pooled ? 1 : views * (views - 1) / 2; }
  int64_t pair(int64_t a, int64_t b) const { return pooled ? 0 : a * views - a * (a + 1) / 2 + b - a - 1; }
  // What a task writes: push [H, C, ld], then pull [H, pairs, C, class_ld].
  int64_t push_size() const { return heads * classes * ld; }
  int64_t pull_stride() const { return classes * class_ld; }
  int64_t partial_size() const { return push_size() + heads * pull_pairs() * pull_stride(); }
};

template <typename T>
struct Probs {
  const T* data;  // [A, H, n, C]
  int64_t view_stride, head_stride, row_stride, col_stride;
  int64_t classes;

  Matrix<const T> rows(int64_t view, int64_t head, int64_t begin, int64_t end) const {
    return {data + view * view_stride + head * head_stride + begin * row_stride, end - begin, classes, row_stride,
            col_stride};
  }
};

// out [rows, C] contiguous = sum, in order of b, of head's rows in the views b != skip from `first` on.
template <typename T>
void sum_views(const DhogPlan& plan, const Probs<T>& probs, int64_t head, int64_t first, int64_t skip, int64_t begin,
               int64_t end, T* __restrict__ out) {
  std::fill(out, out + (end - begin) * plan.classes, T(0));
  for (int64_t b = first; b < plan.views; ++b) {
    if (b == skip) continue;
    const Matrix<const T> source = probs.rows(b, head, begin, end);
    if (source.col_stride == 1 && source.row_stride == plan.classes) {
      for (int64_t i = 0; i < source.rows * plan.classes; ++i) out[i] += source.data[i];
      continue;
    }
    for (int64_t row = 0; row < source.rows; ++row)
      for (int64_t c = 0; c < plan.classes; ++c)
        out[row * plan.classes + c] += source.data[row * source.row_stride + c * source.col_stride];
  }
}

// One task: the joints of view a = task % A with itself (push) and with the views after it (pull), over the rows of
// chunk task / A.
template <typename T>
void dhog_forward_task(const DhogPlan& plan, const Probs<T>& probs, int64_t task, T* partial) {
  const int64_t a = task % plan.views, chunk = task / plan.views;
  const int64_t first = chunk * plan.chunk_rows, last = std::min(plan.n, first + plan.chunk_rows);
  const int64_t piece = std::min(kDhogChunkRows, std::max<int64_t>(1, last - first));
  const Buffer<T> wide_memory(Panels<T>::size(piece, plan.ld)), pull_memory(Panels<T>::size(piece, plan.class_ld));
  const Buffer<T> sum(piece * plan.classes);
  T* pull = partial + plan.push_size();
  std::fill(partial, partial + plan.partial_size(), T(0));

  for (int64_t begin = first; begin < last; begin += kDhogChunkRows) {
    const int64_t end = std::min(last, begin + kDhogChunkRows);
    const Panels<T> wide{wide_memory.get(), end - begin, plan.ld};
    for (int64_t head = 0; head < plan.heads; ++head) {
      const Matrix<const T> z = probs.rows(a, head, begin, end);
      if (head > 0) product(z, wide, 0, head * plan.class_ld, partial + head * plan.classes * plan.ld, plan.ld, true);
      if (head + 1 < plan.heads) lay_out(z, wide, head * plan.class_ld);

      T* joints = pull + head * plan.pull_pairs() * plan.pull_stride();
      const auto add = [&](const Matrix<const T>& other, int64_t pair) {
        product(z, panels_of(other, pull_memory.get()), 0, plan.classes, joints + pair * plan.pull_stride(),
                plan.class_ld, true);
      };
      if (!plan.pooled) {
        for (int64_t b = a + 1; b < plan.views; ++b) add(probs.rows(b, head, begin, end), plan.pair(a, b));
      } else if (a + 1 < plan.views) {
        sum_views(plan, probs, head, a + 1, a, begin, end, sum.get());
        add({sum.get(), end - begin, plan.classes, plan.classes, 1}, 0);
      }
    }
  }
}

// dZ of view a = task % A over the rows of chunk task / A, times `scale`; grad [A, H, n, C] contiguous.
// pull [H * pairs]: panels of G; push [H * H]: panels of G_ij^T for j < i.
template <typename T>
void dhog_backward_task(const DhogPlan& plan, const Probs<T>& probs, int64_t task, const Panels<T>* pull,
                        const Panels<T>* push, double scale, T* grad) {
  const int64_t a = task % plan.views, chunk = task / plan.views;
  const int64_t first = chunk * plan.chunk_rows, last = std::min(plan.n, first + plan.chunk_rows);
  const int64_t piece = std::min(kDhogChunkRows, std::max<int64_t>(1, last - first));
  const Buffer<T> sum(piece * plan.classes), tile(piece * plan.class_ld);
  const T factor = static_cast<T>(scale);

  for (int64_t begin = first; begin < last; begin += kDhogChunkRows) {
    const int64_t end = std::min(last, begin + kDhogChunkRows);
    for (int64_t i = 0; i < plan.heads; ++i) {
      bool accumulate = false;
      const auto add = [&](const Matrix<const T>& rows, const Panels<T>& g) {
        product(rows.transposed(), g, 0, plan.classes, tile.get(), plan.class_ld, accumulate);
        accumulate = true;
      };
      if (plan.pooled) {
        sum_views(plan, probs, i, 0, a, begin, end, sum.get());
        add({sum.get(), end - begin, plan.classes, plan.classes, 1}, pull[i]);
      } else {
        for (int64_t b = 0; b < plan.views; ++b)
          if (b != a)
            add(probs.rows(b, i, begin, end), pull[i * plan.pull_pairs() + plan.pair(std::min(a, b), std::max(a, b))]);
      }
      for (int64_t j = 0; j < i; ++j) add(probs.rows(a, j, begin, end), push[i * plan.heads + j]);

      T* __restrict__ target = grad + ((a * plan.heads + i) * plan.n + begin) * plan.classes;
      const T* __restrict__ source = tile.get();
      for (int64_t row = 0; row < end - begin; ++row)
        for (int64_t c = 0; c < plan.classes; ++c)
          target[row * plan.classes + c] = factor * source[row * plan.class_ld + c];
    }
  }
}

}  // namespace deepclust::cpu
