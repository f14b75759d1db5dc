// dhog_loss on the CPU: every pull and push joint of A augmentations and H heads, then all their gradients at once.
//
//   pooled    pull_i    = sum_{a < b} Z_ai^T Z_bi      one joint a head: with its transpose, all ordered pairs
//   mean      pull_i,ab = Z_ai^T Z_bi, a < b           A (A - 1) / 2 joints a head
//   push_ij   = sum_a Z_ai^T Z_aj, j < i               the strictly lower blocks of one Gram matrix
// The pooled pull is taken as sum_a Z_ai^T (sum of later Z_bi) and not as S^T S - sum_a Z_a^T Z_a: nothing cancels, so
// an empty entry stays exactly 0. "Later" goes round the circle of views, so that all tasks have equally many.
//
// Backward, with the weighted gradients of the joints in G:
//   pooled    dZ_ai = (sum_{b != a} Z_bi) G_i + sum_{j < i} Z_aj G_ij^T      (G_i symmetric)
//   mean      dZ_ai = sum_{b != a} Z_bi G_i,ab + the same push
//
// For the push a view is gathered with its heads side by side, W_a [n, H C]: ten clusters a head would fill ten lanes
// of a vector, eight heads side by side fill five whole ones. The pull reads probs as they lie. A task is one view of
// one chunk of rows and writes only what is its own, so that two cores do not pass cache lines to and fro; partial
// joints are added in task order, in waves of as many tasks as kDhogWaveBytes hold, one at least. A pair's own joint
// has one view that writes it: the views of a chunk share the memory of those. Traffic: probs A / 2 times, from cache;
// work: about A n (H C)^2 / 2 multiply-adds each way, which bounds it.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "../../common/buffer.h"
#include "../gemm/product.h"

namespace deepclust::cpu {

inline constexpr int64_t kDhogChunkRows = 512;
inline constexpr int64_t kDhogMaxChunks = 8;
inline constexpr int64_t kDhogWaveBytes = int64_t{256} << 20;  // of partial joints at once

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
    chunk_rows = std::max(kDhogChunkRows, round_up(ceil_div(n, kDhogMaxChunks), kDhogChunkRows));
    chunks = std::max<int64_t>(1, ceil_div(n, chunk_rows));
  }
  int64_t tasks() const { return views * chunks; }
  int64_t work() const { return views * n * width * (ld / 2 + class_ld); }
  // Joints a head: one pooled over all view pairs, or one a pair a < b.
  int64_t pull_pairs() const { return pooled ? 1 : views * (views - 1) / 2; }
  int64_t pair(int64_t a, int64_t b) const {
    if (a > b) std::swap(a, b);
    return pooled ? 0 : a * views - a * (a + 1) / 2 + b - a - 1;
  }
  // The views after a on the circle that a is paired with: of every two views one has the other.
  int64_t later(int64_t a) const { return (views - 1) / 2 + (views % 2 == 0 && a < views / 2 ? 1 : 0); }
  // What a task writes: the Gram matrix [H C, ld] and the pull joints [H, pairs, C, class_ld].
  int64_t push_size() const { return width * ld; }
  int64_t pull_stride() const { return classes * class_ld; }
  int64_t pull_size() const { return heads * pull_pairs() * pull_stride(); }
  // Neighbouring tasks that share the memory of their pull joints.
  int64_t sharing() const { return pooled ? 1 : views; }
  // Tasks from `first` on that are one wave: within one share, or whole ones.
  int64_t wave(int64_t first, int64_t bytes_of_element) const {
    const int64_t fit = kDhogWaveBytes / bytes_of_element, share_end = (first / sharing() + 1) * sharing();
    const int64_t whole = push_size() * sharing() + pull_size();
    if (first % sharing() == 0 && fit / whole > 0) return std::min(tasks(), first + fit / whole * sharing()) - first;
    return std::min(share_end - first, std::max<int64_t>(1, (fit - pull_size()) / push_size()));
  }

  int64_t first_row(int64_t task) const { return task / views * chunk_rows; }
  int64_t last_row(int64_t task) const { return std::min(n, first_row(task) + chunk_rows); }
  // Rows that a task works on at a time, at most.
  int64_t piece_rows(int64_t task) const {
    return std::min(kDhogChunkRows, std::max<int64_t>(1, last_row(task) - first_row(task)));
  }
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
  int64_t classes;

  Matrix<const T> rows(int64_t view, int64_t head, int64_t begin, int64_t end) const {
    return {data + view * view_stride + head * head_stride + begin * row_stride, end - begin, classes, row_stride,
            col_stride};
  }
};

// W_a of rows [begin, end): wide [end - begin, ld].
template <typename T>
void gather(const DhogPlan& plan, const Probs<T>& probs, int64_t a, int64_t begin, int64_t end, T* wide) {
  for (int64_t head = 0; head < plan.heads; ++head) {
    const Matrix<const T> z = probs.rows(a, head, begin, end);
    T* target = wide + head * plan.classes;
    for (int64_t row = 0; row < z.rows; ++row, target += plan.ld) {
      const T* source = z.data + row * z.row_stride;
      if (z.col_stride == 1)
        copy_row(target, source, plan.classes);
      else
        for (int64_t c = 0; c < plan.classes; ++c) target[c] = source[c * z.col_stride];
    }
  }
  for (int64_t row = 0; row < end - begin; ++row)
    std::fill(wide + row * plan.ld + plan.width, wide + (row + 1) * plan.ld, T(0));
}

// out [end - begin, C] contiguous = the head's rows summed over `count` views that follow a on the circle, in order.
template <typename T>
void sum_views(const DhogPlan& plan, const Probs<T>& probs, int64_t a, int64_t count, int64_t head, int64_t begin,
               int64_t end, T* __restrict__ out) {
  std::fill(out, out + (end - begin) * plan.classes, T(0));
  for (int64_t k = 1; k <= count; ++k) {
    const Matrix<const T> z = probs.rows((a + k) % plan.views, head, begin, end);
    if (z.col_stride == 1 && z.row_stride == plan.classes) {
      const T* __restrict__ source = z.data;
      for (int64_t i = 0; i < z.rows * plan.classes; ++i) out[i] += source[i];
      continue;
    }
    for (int64_t row = 0; row < z.rows; ++row)
      for (int64_t c = 0; c < plan.classes; ++c)
        out[row * plan.classes + c] += z.data[row * z.row_stride + c * z.col_stride];
  }
}

// One task: adds the joints of view a = task % A with itself to push, and with the views after it to pull.
template <typename T>
void dhog_forward_task(const DhogPlan& plan, const Probs<T>& probs, int64_t task, T* push, T* pull) {
  const int64_t a = task % plan.views, first = plan.first_row(task), last = plan.last_row(task);
  const int64_t piece = plan.piece_rows(task), later = plan.later(a);
  const Buffer<T> wide(piece * plan.ld), sum(piece * plan.classes), panels(Panels<T>::size(piece, plan.classes));

  for (int64_t begin = first; begin < last; begin += kDhogChunkRows) {
    const int64_t end = std::min(last, begin + kDhogChunkRows), rows = end - begin;
    gather(plan, probs, a, begin, end, wide.get());
    const Panels<T> operand = row_major_panels<T>(wide.get(), rows, plan.ld);
    // Eight rows of the Gram matrix at a time, up to the last column that any of them needs.
    for (int64_t row = plan.classes; row < plan.width; row += 8) {
      const int64_t count = std::min<int64_t>(8, plan.width - row);
      const int64_t columns = (row + count - 1) / plan.classes * plan.classes;
      product(Matrix<const T>{wide.get() + row, rows, count, plan.ld, 1}, operand, 0, columns, push + row * plan.ld,
              plan.ld, true);
    }
    for (int64_t head = 0; head < plan.heads && later > 0; ++head) {
      const Matrix<const T> z = probs.rows(a, head, begin, end);
      T* joints = pull + head * plan.pull_pairs() * plan.pull_stride();
      const auto add = [&](const Matrix<const T>& other, int64_t pair) {
        product(z, panels_of(other, panels.get()), 0, plan.classes, joints + pair * plan.pull_stride(), plan.class_ld,
                true);
      };
      if (plan.pooled) {
        sum_views(plan, probs, a, later, head, begin, end, sum.get());
        add({sum.get(), rows, plan.classes, plan.classes, 1}, 0);
      } else {
        for (int64_t k = 1; k <= later; ++k) {
          const int64_t b = (a + k) % plan.views;
          add(probs.rows(b, head, begin, end), plan.pair(a, b));
        }
      }
    }
  }
}

// dZ of view a = task % A; grad [A, H, n, C] contiguous. The upstream gradient is in push and pull already.
// push [H C, ld]: G_ij^T in block (j, i), j < i; pull [H, pairs, C, class_ld]: G, zero in the columns past C.
template <typename T>
void dhog_backward_task(const DhogPlan& plan, const Probs<T>& probs, int64_t task, const T* push, const T* pull,
                        T* grad) {
  constexpr int64_t kRows = 128;  // a tile of the gradient, and its operands, stay in the second-level cache
  const int64_t a = task % plan.views, first = plan.first_row(task), last = plan.last_row(task);
  // A head's product is written in whole vectors, adding zeros to what lies beside it: behind the last row too.
  const Buffer<T> wide(kRows * plan.ld), sum(kRows * plan.classes), tile(kRows * plan.ld + plan.lanes);
  const Panels<T> push_operand = row_major_panels(push, plan.width, plan.ld);
  std::fill(tile.get() + kRows * plan.ld, tile.get() + kRows * plan.ld + plan.lanes, T(0));

  for (int64_t begin = first; begin < last; begin += kRows) {
    const int64_t end = std::min(last, begin + kRows), rows = end - begin;
    gather(plan, probs, a, begin, end, wide.get());
    // A panel of columns needs the heads before its last one.
    for (int64_t col = 0; col < plan.ld; col += Panels<T>::kPanel) {
      const int64_t stop = std::min(plan.ld, col + Panels<T>::kPanel);
      const int64_t depth = (std::min(plan.width, stop) - 1) / plan.classes * plan.classes;
      product(Matrix<const T>{wide.get(), depth, rows, 1, plan.ld}, push_operand, col, stop, tile.get() + col, plan.ld,
              false);
    }
    for (int64_t head = 0; head < plan.heads; ++head) {
      T* columns = tile.get() + head * plan.classes;
      const auto add = [&](const Matrix<const T>& others, int64_t pair) {
        const T* g = pull + (head * plan.pull_pairs() + pair) * plan.pull_stride();
        product(others.transposed(), row_major_panels(g, plan.classes, plan.class_ld), 0, plan.classes, columns,
                plan.ld, true);
      };
      if (plan.pooled) {
        sum_views(plan, probs, a, plan.views - 1, head, begin, end, sum.get());
        add({sum.get(), rows, plan.classes, plan.classes, 1}, 0);
      } else {
        for (int64_t b = 0; b < plan.views; ++b)
          if (b != a) add(probs.rows(b, head, begin, end), plan.pair(a, b));
      }
      T* target = grad + ((a * plan.heads + head) * plan.n + begin) * plan.classes;
      for (int64_t row = 0; row < rows; ++row)
        copy_row(target + row * plan.classes, columns + row * plan.ld, plan.classes);
    }
  }
}

}  // namespace deepclust::cpu
