// dhog_loss on the GPU: every pull and push joint of A views and H heads, then all their gradients at once.
//
//   pooled    pull_i    = sum_{a < b} Z_ai^T Z_bi      one joint a head: with its transpose, all ordered pairs
//   mean      pull_i,ab = Z_ai^T Z_bi, a < b           A (A - 1) / 2 joints a head
//   push_ij   = sum_a Z_ai^T Z_aj, j < i
// Backward, with the weighted gradients of the joints in G:
//   pooled    dZ_ai = (sum_{b != a} Z_bi) G_i + sum_{j < i} Z_aj G_ij^T      (G_i symmetric)
//   mean      dZ_ai = sum_{b != a} Z_bi G_i,ab + the same push
//
// Three launches: the partial joints (product_kernel.cuh), their information and gradients (joint_kernel.cuh; three
// launches for large joints), the gradient of probs. A pooled joint is cut by view a, and its B is the sum of the later
// views, added while they are read: nothing cancels, so an empty entry stays exactly 0. "Later" goes round the circle
// of views, so that all blocks have about as many. The last block to finish its joint puts the loss together.
//
// At 4 x 8 x 220 x 10, the paper's step: 282 KB read each way, 282 KB of gradient written, 6.3 MFLOP forward and as
// many back; 144 blocks forward, 72 and 224 after. Bytes and arithmetic alone would take 0.4 us on an H100, so all
// three launches are bound by latency: some 15 us together, by estimate. Backward's first pieces of the segments after
// the first, of up to 8, are fetched while the piece before is multiplied: at 10 classes that hides 60 of some 700
// cycles (a segment is one piece of ten steps), at 70, where five pieces of 16 steps take 2600 cycles, all of them: a
// fifth less for a block that is alone on its multiprocessor. Three segments of ten steps in one piece would read all
// three at once, but tell each of its elements' segments apart: 400 instructions a warp more, for 1.5 us at best.
#pragma once

#include "dhog_loss.h"
#include "joint_kernel.cuh"
#include "product_kernel.cuh"

namespace deepclust::cuda {

struct DhogTile {
  int64_t m0, n0, rows, cols;
  int segments;
  int64_t joint;            // forward: which pull, or pulls + which push
  int64_t i, j;             // heads: of a push joint; backward: head i
  int64_t view, row_chunk;  // forward: view a of the chunk; backward: view a
  int64_t other_view;       // b of a mean pull
};

// The triangle's entries in rows, (1, 0), (2, 0), (2, 1), ...: entry t is (i, j).
DC_DEVICE void triangle_entry(int64_t t, int64_t& i, int64_t& j) {
  i = 1;
  while (t >= i) t -= i++;
  j = t;
}
DC_DEVICE int64_t triangle_index(int64_t i, int64_t j) {
  return i * (i - 1) / 2 + j;
}

// The number of the pair a < b among (0, 1), (0, 2), ..., (1, 2), ..., and back.
DC_DEVICE int64_t pair_index(int64_t views, int64_t a, int64_t b) {
  if (a > b) {
    const int64_t swap = a;
    a = b;
    b = swap;
  }
  return a * views - a * (a + 1) / 2 + b - a - 1;
}
DC_DEVICE void pair_entry(int64_t views, int64_t pair, int64_t& a, int64_t& b) {
  a = 0;
  while (pair >= views - 1 - a) pair -= views - 1 - a++;
  b = a + 1 + pair;
}

template <typename E>
DC_DEVICE const E* slice(const DhogPlan& plan, const E* probs, int64_t view, int64_t head) {
  return probs + (view * plan.heads + head) * plan.n * plan.classes;
}

// Partial joints [pulls, pull_chunks, C, C], then [pushes, push_chunks, C, C]; (partial, tile) to a block.
template <typename E>
struct DhogJointProducts {
  using T = accumulator_t<E>;
  DhogPlan plan;
  const E* probs;
  T* partials;
  unsigned* finished;  // blocks of the next launch that are done

  template <int kTile>
  DC_DEVICE DhogTile tile() const {
    // Zero before the next launch counts in it: the stream orders the two.
    if (blockIdx.x == 0 && threadIdx.x == 0) *finished = 0;
    const int64_t across = ceil_div(plan.classes, kTile), partial = blockIdx.x / (across * across);
    const int64_t place = blockIdx.x % (across * across), pull_partials = plan.pulls * plan.pull_chunks;
    DhogTile tile{place / across * kTile, place % across * kTile, plan.classes, plan.classes, 1, 0, 0, 0, 0, 0, 0};
    const bool pull = partial < pull_partials;
    const int64_t chunks = pull ? plan.pull_chunks : plan.push_chunks;
    const int64_t index = (pull ? partial : partial - pull_partials) / chunks;
    const int64_t chunk = (pull ? partial : partial - pull_partials) % chunks;
    tile.joint = pull ? index : plan.pulls + index;
    tile.view = chunk / plan.row_chunks;
    tile.row_chunk = chunk % plan.row_chunks;
    if (!pull) {
      triangle_entry(index, tile.i, tile.j);
    } else {
      tile.i = tile.j = index / plan.pairs;
      if (!plan.pooled) pair_entry(plan.views, index % plan.pairs, tile.view, tile.other_view);
    }
    return tile;
  }
  using Products = Segment<Operand<E, Fastest::kM>, SumOperand<E, Fastest::kM>>;
  DC_DEVICE Products segment(const DhogTile& tile, int) const {
    const int64_t c = plan.classes;
    const int64_t begin = tile.row_chunk * plan.chunk_rows, end = begin + plan.chunk_rows;
    Products products{{slice(plan, probs, tile.view, tile.i), c, c},
                      {{slice(plan, probs, tile.view, tile.j), c, c}},
                      begin,
                      end < plan.n ? end : plan.n};
    if (tile.joint >= plan.pulls) return products;
    if (!plan.pooled) {
      products.b.data = slice(plan, probs, tile.other_view, tile.i);
      return products;
    }
    products.b.data = slice(plan, probs, 0, tile.i);
    products.b.first = static_cast<int>((tile.view + 1) % plan.views);
    products.b.terms =
        static_cast<int>((plan.views - 1) / 2 + (plan.views % 2 == 0 && tile.view < plan.views / 2 ? 1 : 0));
    products.b.views = static_cast<int>(plan.views);
    products.b.view_stride = plan.heads * plan.n * c;
    return products;
  }
  DC_DEVICE void store(const DhogTile& tile, int64_t m, int64_t n, T sum) const {
    const bool pull = tile.joint < plan.pulls;
    const int64_t chunk = (pull && !plan.pooled ? 0 : tile.view * plan.row_chunks) + tile.row_chunk;
    const int64_t partial = pull ? tile.joint * plan.pull_chunks
                                 : plan.pulls * plan.pull_chunks + (tile.joint - plan.pulls) * plan.push_chunks;
    partials[((partial + chunk) * plan.classes + m) * plan.classes + n] = sum;
  }
};

// The joints t: the pulls, then pair (i, j) of heads x heads, of which those with j >= i are not wanted.
template <typename T>
struct DhogJoints {
  DhogPlan plan;
  DhogOutputs out;
  JointSpace<T> space;
  const T* partials;
  double* losses;  // [pulls + heads * heads]
  double* shares;  // [heads]: of the loss
  unsigned* finished;

  DC_DEVICE int64_t i(int64_t t) const { return (t - plan.pulls) / plan.heads; }
  DC_DEVICE int64_t j(int64_t t) const { return (t - plan.pulls) % plan.heads; }
  DC_DEVICE bool wanted(int64_t t) const { return t < plan.pulls || j(t) < i(t); }
  DC_DEVICE double push_weight(int64_t i) const {
    return out.alpha / static_cast<double>(out.push_by_index ? i + 1 : i);
  }

  DC_DEVICE Joint<T> joint(int64_t t) const {
    const int64_t size = plan.classes * plan.classes;
    const bool pull = t < plan.pulls;
    const int64_t push = pull ? 0 : triangle_index(i(t), j(t));
    Joint<T> joint{};
    joint.partials =
        partials + (pull ? t * plan.pull_chunks : plan.pulls * plan.pull_chunks + push * plan.push_chunks) * size;
    joint.chunks = pull ? plan.pull_chunks : plan.push_chunks;
    joint.rows = joint.cols = plan.classes;
    joint.symmetric = pull;
    joint.lamb = pull ? out.lamb : 1.0;
    joint.scale = pull ? 1.0 / static_cast<double>(plan.pulls) : -push_weight(i(t));
    joint.cut = plan.cut;
    joint.gradient =
        pull ? static_cast<T*>(out.pull_grad) + t * size : static_cast<T*>(out.push_grad) + (t - plan.pulls) * size;
    joint.bind(space, pull ? t : plan.pulls + push);
    return joint;
  }

  // The last block to come here adds up all losses, in order.
  DC_DEVICE void finish(int64_t t, double loss) const {
    DC_SHARED(int, last, 1);
    if (threadIdx.x == 0) {
      losses[t] = loss;
      __threadfence();  // the loss is there before the count says so
      last[0] = atomicAdd(finished, 1u) + 1 == static_cast<unsigned>(plan.finished);
    }
    DC_SYNC();
    if (last[0] == 0) return;
    __threadfence();
    const volatile double* const all = losses;  // from memory, not from this multiprocessor's cache
    for (int64_t head = threadIdx.x; head < plan.heads; head += kThreads) {
      double pull = 0;
      for (int64_t pair = 0; pair < plan.pairs; ++pair)
        pull -= all[head * plan.pairs + pair] / static_cast<double>(plan.pairs);
      static_cast<T*>(out.pull)[head] = static_cast<T>(pull);
      double share = -pull / static_cast<double>(plan.heads);
      for (int64_t other = 0; other < plan.heads; ++other) {
        const double push = other < head ? -all[plan.pulls + head * plan.heads + other] : 0.0;
        static_cast<T*>(out.push)[head * plan.heads + other] = static_cast<T>(push);
        if (other < head) share += push_weight(head) * push;
      }
      shares[head] = share;
    }
    DC_SYNC();
    if (threadIdx.x != 0) return;
    double sum = 0;
    for (int64_t head = 0; head < plan.heads; ++head) sum += shares[head];
    *static_cast<T*>(out.loss) = static_cast<T>(sum);
  }
};

// Gradients: (view, head, tile of samples, tile of classes) to a block.
template <typename E>
struct DhogGradients {
  using T = accumulator_t<E>;
  DhogPlan plan;
  const T* grad_loss;  // []
  const E* probs;
  const T* pull_grad;  // [heads, pairs, C, C]
  const T* push_grad;  // [heads, heads, C, C]
  E* grad;

  int64_t blocks() const { return plan.views * plan.heads * ceil_div(plan.n, plan.tile) * plan.across(); }

  template <int kTile>
  DC_DEVICE DhogTile tile() const {
    const int64_t across = ceil_div(plan.classes, kTile), down = ceil_div(plan.n, kTile);
    const int64_t place = blockIdx.x % (across * down), which = blockIdx.x / (across * down);
    DhogTile tile{place / across * kTile, place % across * kTile, plan.n, plan.classes, 0, 0, 0, 0, 0, 0, 0};
    tile.view = which / plan.heads;
    tile.i = which % plan.heads;
    tile.segments = static_cast<int>((plan.pooled ? 1 : plan.views - 1) + tile.i);
    return tile;
  }
  // The pull's segments, then the push of every earlier head.
  using Products = Segment<SumOperand<E, Fastest::kK>, Operand<T, Fastest::kEither>>;
  DC_DEVICE Products segment(const DhogTile& tile, int s) const {
    const int64_t c = plan.classes, size = c * c;
    Products products{{{probs, c, plan.n}}, {pull_grad + tile.i * plan.pairs * size, c, c, false}, 0, c};
    const int64_t pull_segments = plan.pooled ? 1 : plan.views - 1;
    if (s >= pull_segments) {
      const int64_t earlier = s - pull_segments;
      products.a.data = slice(plan, probs, tile.view, earlier);
      products.b = {push_grad + (tile.i * plan.heads + earlier) * size, c, c, true};
    } else if (plan.pooled) {
      products.a.data = slice(plan, probs, 0, tile.i);
      products.a.first = static_cast<int>((tile.view + 1) % plan.views);
      products.a.terms = static_cast<int>(plan.views - 1);
      products.a.views = static_cast<int>(plan.views);
      products.a.view_stride = plan.heads * plan.n * c;
    } else {
      const int64_t other = (tile.view + 1 + s) % plan.views;
      products.a.data = slice(plan, probs, other, tile.i);
      products.b.data += pair_index(plan.views, tile.view, other) * size;
    }
    return products;
  }
  DC_DEVICE void store(const DhogTile& tile, int64_t m, int64_t n, T sum) const {
    const int64_t row = (tile.view * plan.heads + tile.i) * plan.n + m;
    write(sum * *grad_loss, grad[row * plan.classes + n]);
  }
};

}  // namespace deepclust::cuda
