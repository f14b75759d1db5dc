// dhog_loss on the CPU: every pull and push joint of A augmentations and H heads, then all their gradients at once.
//
// Views Z_a [n, H C] put the heads side by side, R_a is what head i of view a is pulled to:
//   pooled   R_a = sum_{b != a} Z_b     pull_i = sum_a Z_ai^T R_ai        one joint a head
//   mean     R_a = Z_b, one b at a time pull_i,ab = Z_ai^T Z_bi, a < b     A (A - 1) / 2 joints a head
//   push_ij  = sum_a Z_ai^T Z_aj, j < i: the strictly lower blocks of one Gram matrix.
// R_a is summed directly rather than taken as S^T S - sum Z^T Z: nothing cancels, so an empty entry stays exactly 0.
//
// Backward, with the gradients of the joints (already weighted) in G:
//   pooled   dZ_ai = 2 R_ai G_i + sum_{j < i} Z_aj G_ij^T      (G_i symmetric)
//   mean     dZ_ai = sum_{b != a} Z_bi G_i,ab + the same push
// Traffic: probs once each way plus one gathered copy; work: about A n (H C)^2 / 2 multiply-adds each way, which
// bounds it. A task is one view of one chunk of rows; partial joints are added in task order.
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
  int64_t width, ld, class_ld, chunks, chunk_rows;

  DhogPlan(int64_t views, int64_t heads, int64_t n, int64_t classes, bool pooled, int64_t lanes)
      : views(views), heads(heads), n(n), classes(classes), pooled(pooled) {
    width = heads * classes;
    ld = round_up(width, lanes);
    class_ld = round_up(classes, lanes);
    chunk_rows = std::max(kDhogChunkRows, round_up((n + kDhogMaxChunks - 1) / kDhogMaxChunks, kDhogChunkRows));
    chunks = std::max<int64_t>(1, (n + chunk_rows - 1) / chunk_rows);
  }
  int64_t tasks() const { return views * chunks; }
  int64_t work() const { return views * n * width * (width / 2 + class_ld); }
  // Joints a head: one pooled over all view pairs, or one a pair a < b.
  int64_t pull_pairs() const { return pooled ? 1 : views * (views - 1) / 2; }
  int64_t pair(int64_t a, int64_t b) const { return pooled ? 0 : a * views - a * (a + 1) / 2 + b - a - 1; }
  int64_t push_size() const { return width * ld; }
  int64_t pull_size() const { return heads * pull_pairs() * classes * class_ld; }
  // Elements a task adds to: the Gram matrix, then the pull joints [heads, pairs, C, class_ld].
  int64_t partial_size() const { return push_size() + pull_size(); }
};

template <typename T>
struct Probs {
  const T* data;  // [A, H, n, C]
  int64_t view_stride, head_stride, row_stride, col_stride;

  // Rows [begin, end) of view a with the heads side by side: out [end - begin, H C].
  void gather(const DhogPlan& plan, int64_t a, int64_t begin, int64_t end, T* out) const {
    for (int64_t head = 0; head < plan.heads; ++head) {
      const T* source = data + a * view_stride + head * head_stride + begin * row_stride;
      T* target = out + head * plan.classes;
      for (int64_t row = begin; row < end; ++row, source += row_stride, target += plan.width) {
        if (col_stride == 1) {
          for (int64_t c = 0; c < plan.classes; ++c) target[c] = source[c];
        } else {
          for (int64_t c = 0; c < plan.classes; ++c) target[c] = source[c * col_stride];
        }
      }
    }
  }
};

// others [rows, H C] = sum over b != a, in order of b, of Z_b; `scratch` holds one gathered view.
template <typename T>
void gather_others(const DhogPlan& plan, const Probs<T>& probs, int64_t a, int64_t begin, int64_t end, T* scratch,
                   T* others) {
  const int64_t size = (end - begin) * plan.width;
  std::fill(others, others + size, T(0));
  for (int64_t b = 0; b < plan.views; ++b) {
    if (b == a) continue;
    probs.gather(plan, b, begin, end, scratch);
    for (int64_t i = 0; i < size; ++i) others[i] += scratch[i];
  }
}

// out[head] (+)= left_head^T right_head for every head, both [rows, H C]; joints of a head are `stride` apart.
template <typename T>
void pull_products(const DhogPlan& plan, int64_t rows, const T* left, const T* right, T* panel_memory, T* out,
                   int64_t stride, bool accumulate) {
  for (int64_t head = 0; head < plan.heads; ++head) {
    Panels<T> panels{panel_memory};
    lay_out({right + head * plan.classes, rows, plan.classes, plan.width, 1}, panels);
    product({left + head * plan.classes, rows, plan.classes, plan.width, 1}, panels, plan.classes, out + head * stride,
            plan.class_ld, accumulate);
  }
}

// One task: the joints of view a = task % A against everything, over the rows of chunk task / A.
template <typename T>
void dhog_forward_task(const DhogPlan& plan, const Probs<T>& probs, int64_t task, T* partial) {
  const int64_t a = task % plan.views, chunk = task / plan.views;
  const int64_t chunk_begin = chunk * plan.chunk_rows, chunk_end = std::min(plan.n, chunk_begin + plan.chunk_rows);
  const int64_t piece = std::min(kDhogChunkRows, std::max<int64_t>(1, chunk_end - chunk_begin));
  const Buffer<T> view(piece * plan.width), other(piece * plan.width), sum(piece * plan.width);
  const Buffer<T> panel_memory(Panels<T>::size(piece, plan.width));
  T* pull = partial + plan.push_size();
  const int64_t pull_stride = plan.pull_pairs() * plan.classes * plan.class_ld;
  std::fill(pull, pull + plan.pull_size(), T(0));

  for (int64_t begin = chunk_begin; begin < chunk_end || begin == chunk_begin; begin += kDhogChunkRows) {
    const int64_t end = std::min(chunk_end, begin + kDhogChunkRows), rows = end - begin;
    probs.gather(plan, a, begin, end, view.get());
    if (plan.pooled) {
      gather_others(plan, probs, a, begin, end, other.get(), sum.get());
      pull_products(plan, rows, view.get(), sum.get(), panel_memory.get(), pull, pull_stride, true);
    } else {
      for (int64_t b = a + 1; b < plan.views; ++b) {
        probs.gather(plan, b, begin, end, other.get());
        pull_products(plan, rows, view.get(), other.get(), panel_memory.get(),
                      pull + plan.pair(a, b) * plan.classes * plan.class_ld, pull_stride, true);
      }
    }
    Panels<T> panels{panel_memory.get()};
    lay_out({view.get(), rows, plan.width, plan.width, 1}, panels);
    for (int64_t head = 1; head < plan.heads; ++head)
      product({view.get() + head * plan.classes, rows, plan.classes, plan.width, 1}, panels, head * plan.classes,
              partial + head * plan.classes * plan.ld, plan.ld, begin > chunk_begin);
  }
}

// dZ of view a = task % A over the rows of chunk task / A, times `scale`; grad [A, H, n, C] contiguous.
// push [heads]: panels of [head C, C], the blocks G_ij^T of all j < i stacked; pull [heads, pairs]: panels of G.
template <typename T>
void dhog_backward_task(const DhogPlan& plan, const Probs<T>& probs, int64_t task, const Panels<T>* push,
                        const Panels<T>* pull, double scale, T* grad) {
  const int64_t a = task % plan.views, chunk = task / plan.views;
  const int64_t chunk_begin = chunk * plan.chunk_rows, chunk_end = std::min(plan.n, chunk_begin + plan.chunk_rows);
  const int64_t piece = std::min(kDhogChunkRows, std::max<int64_t>(1, chunk_end - chunk_begin));
  const Buffer<T> view(piece * plan.width), other(piece * plan.width), sum(piece * plan.width);
  const Buffer<T> tile(plan.heads * piece * plan.class_ld);
  const auto tile_of = [&](int64_t head) { return tile.get() + head * piece * plan.class_ld; };
  const T factor = static_cast<T>(scale);

  for (int64_t begin = chunk_begin; begin < chunk_end; begin += kDhogChunkRows) {
    const int64_t end = std::min(chunk_end, begin + kDhogChunkRows), rows = end - begin;
    const auto head_of = [&](const T* x, int64_t head) {  // seen as [C, rows]: the sum runs over classes
      return Matrix<const T>{x + head * plan.classes, plan.classes, rows, 1, plan.width};
    };
    if (plan.pooled) {
      gather_others(plan, probs, a, begin, end, other.get(), sum.get());
      for (int64_t i = 0; i < plan.heads; ++i)
        product(head_of(sum.get(), i), pull[i], plan.classes, tile_of(i), plan.class_ld, false);
    } else {
      std::fill(tile.get(), tile.get() + plan.heads * piece * plan.class_ld, T(0));
      for (int64_t b = 0; b < plan.views; ++b) {
        if (b == a) continue;
        probs.gather(plan, b, begin, end, other.get());
        for (int64_t i = 0; i < plan.heads; ++i)
          product(head_of(other.get(), i), pull[i * plan.pull_pairs() + plan.pair(std::min(a, b), std::max(a, b))],
                  plan.classes, tile_of(i), plan.class_ld, true);
      }
    }
    probs.gather(plan, a, begin, end, view.get());
    for (int64_t i = 0; i < plan.heads; ++i) {
      if (i > 0)
        product(Matrix<const T>{view.get(), i * plan.classes, rows, 1, plan.width}, push[i], plan.classes, tile_of(i),
                plan.class_ld, true);
      T* target = grad + ((a * plan.heads + i) * plan.n + begin) * plan.classes;
      const T* source = tile_of(i);
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t c = 0; c < plan.classes; ++c)
          target[row * plan.classes + c] = factor * source[row * plan.class_ld + c];
    }
  }
}

}  // namespace deepclust::cpu
