// Rows as bfloat16 codes, and how far off a code may be: what the tensor-core filters search in.
//
// A row r has the code c, the nearest bfloat16 numbers to r - mean (r itself for products), and the residual
// rho >= |r - mean - c|, measured and not assumed. Then
//
//   | |q - x| - |c_q - c_x| | <= rho_q + rho_x                               (the triangle inequality)
//   | q x - c_q c_x |        <= rho_q |x| + |c_q| rho_x                      (q x - c_q c_x = d_q x + c_q d_x)
//
// whatever the mean is: it only makes the codes short, and the bounds tight. bfloat16 keeps eight bits, so rho is about
// |c| / 900; float32 range, so nothing overflows that did not before.
//
// What the tensor cores add: products of bfloat16 are exact in float32, sums are cut after 24 bits or more, at most
// depth times, each by 2^-22 of the largest term or sum. With the rounding of the exact values, of 16 + depth / 16
// steps of 2^-24, all of it is below slack (|c_q|^2 + |c_x|^2) / 2 for slack = (2 depth + 64) 2^-22; `smallest`
// stands for what underflows.
#pragma once

#include "knn_filter.h"
#include "row_tile.cuh"

namespace deepclust::cuda {

// |c|^2 (for products the larger of |c| and |r|), and rho.
struct alignas(8) CodeSize {
  float size, residual;

  DC_DEVICE bool usable() const { return size - size == 0.0f && residual - residual == 0.0f; }
};

// What one stage knows of a row: it looks closer where 2 c_q c_x + p b + r a >= t.
struct alignas(16) RowLimit {
  float p, r, t, unused;
};
struct alignas(8) ColumnTerms {
  float a, b;
};

struct FilterSlack {
  float slack, smallest;
  int64_t depth;

  // Bounds of the distance, or of minus the product, of two rows by twice the product of their codes.
  template <RowValue kValue>
  DC_DEVICE void bounds(const CodeSize& q, const CodeSize& x, float twice, float& low, float& high) const {
    constexpr float kUp = 1.0f + 0x1p-20f;
    if constexpr (kValue == RowValue::kSquaredDistance) {
      const float square = q.size + x.size - twice, error = slack * (q.size + x.size) + smallest;
      const float rho = (q.residual + x.residual) * kUp, least = square - error;
      high = sqrtf((square > 0 ? square : 0.0f) + error) * kUp + rho;
      low = sqrtf(least > 0 ? least : 0.0f) / kUp - rho;
    } else {
      const float error =
          ((q.residual + slack * q.size) * x.size + q.size * x.residual) * kUp + smallest + fabsf(twice) * 0x1p-22f;
      high = error - 0.5f * twice;
      low = -error - 0.5f * twice;
    }
    // Too large to be compared: it may be the best, and bounds nothing.
    if (!(high - high == 0.0f)) high = std::numeric_limits<float>::infinity();
    if (!(low - low == 0.0f)) low = -std::numeric_limits<float>::infinity();
  }
  // `best`: the k-th smallest upper bound. `reach`: no neighbour has a lower bound above it.
  template <RowValue kValue>
  DC_DEVICE float reach(float best) const {
    const float rounding = static_cast<float>(64 + depth / 8) * 0x1p-24f;
    return kValue == RowValue::kSquaredDistance ? best * (1.0f + rounding) : best + fabsf(best) * 0x1p-20f;
  }
  template <RowValue kValue>
  DC_DEVICE RowLimit limit(const CodeSize& q, float reach) const {
    constexpr float kUp = 1.0f + 0x1p-20f;
    RowLimit limit{0, 0, -std::numeric_limits<float>::infinity(), 0};
    if constexpr (kValue == RowValue::kSquaredDistance) {
      const float far = (reach + q.residual) * kUp, square = far * far;
      const float t = q.size * (1.0f - slack) - square - (q.size + square) * 0x1p-20f;
      if (t - t == 0.0f) limit = {2 * far * kUp, 1, t, 0};
    } else {
      const float r = 2 * (q.residual + slack * q.size) * kUp;
      const float t = -2 * reach - fabsf(reach) * 0x1p-19f - 4 * smallest;
      if (t - t == 0.0f && r - r == 0.0f && q.size - q.size == 0.0f) limit = {2 * q.size * kUp, r, t, 0};
    }
    return limit;
  }
  template <RowValue kValue>
  DC_DEVICE ColumnTerms terms(const CodeSize& x) const {
    ColumnTerms terms{x.size, x.residual};
    if constexpr (kValue == RowValue::kSquaredDistance)
      terms.a = x.residual * x.residual - x.size * (1.0f - slack) + 2 * smallest;
    if (!(x.size - x.size == 0.0f && terms.a - terms.a == 0.0f)) terms = {std::numeric_limits<float>::infinity(), 0};
    return terms;
  }
};

// The mean of some rows, 32 columns to a block. Any vector would do.
template <typename E>
struct MeanOfRows {
  static constexpr int64_t kSample = 512;
  const E* rows;
  float* mean;
  int64_t count, depth;
};

template <typename E>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads) mean_of_rows(const MeanOfRows<E> task) {
  DC_SHARED(double, parts, kThreads);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t col = static_cast<int64_t>(blockIdx.x) * kWarp + lane;
  const int64_t sample = task.count < task.kSample ? task.count : task.kSample;
  const E* const first = task.rows + col;
  const int64_t gap = task.count / sample * task.depth;
  double sum = 0;
  if (col < task.depth)
    for (int64_t i = warp; i < sample; i += kWarps) sum += read(first[i * gap]);
  parts[threadIdx.x] = sum;
  DC_SYNC();
  if (warp != 0 || col >= task.depth) return;
  for (int other = 1; other < kWarps; ++other) sum += parts[other * kWarp + lane];
  task.mean[col] = static_cast<float>(sum / static_cast<double>(sample));
}

// Which of `count` rows stands at a place in the order that strides through them.
DC_DEVICE int64_t strided_row(int64_t position, uint64_t stride, int64_t count) {
  return static_cast<int64_t>(static_cast<uint64_t>(position) * stride % static_cast<uint64_t>(count));
}

template <typename E>
struct CodeRows {
  const E* rows;
  const float* mean;   // null: none is taken off
  BFloat16* codes;     // [padded, code_depth], zero beyond the rows and beyond the depth
  CodeSize* sizes;     // [padded]
  ColumnTerms* terms;  // [padded], null for queries
  int64_t count, padded, depth, code_depth;
  uint64_t stride;  // 1: in the order of the rows
  FilterSlack slack;
  ColumnTerms* least_terms = nullptr;  // [padded]: their maximum over 2 c_x c_k + a gives the smallest |c_x - c_k|^2
};

// A warp a row.
template <RowValue kValue, typename E>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads) code_rows(const CodeRows<E> task) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t position = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (position >= task.padded) return;
  const bool exists = position < task.count;
  const E* const row = task.rows + (exists ? strided_row(position, task.stride, task.count) * task.depth : 0);
  BFloat16* const out = task.codes + position * task.code_depth;
  double code_square = 0, row_square = 0, residual = 0;
  for (int64_t d = lane; d < task.code_depth; d += kWarp) {
    const bool inside = exists && d < task.depth;
    const double value =
        inside ? static_cast<double>(read(row[d])) - (task.mean != nullptr ? task.mean[d] : 0.0f) : 0.0;
    BFloat16 code;
    write(static_cast<float>(value), code);
    out[d] = code;
    const double coded = read(code);
    code_square += coded * coded;
    row_square += value * value;
    residual += (value - coded) * (value - coded);
  }
  code_square = warp_sum(code_square);
  row_square = warp_sum(row_square);
  residual = warp_sum(residual);
  if (lane != 0) return;
  constexpr double kUp = 1.0 + 0x1p-20;
  const double longer = row_square > code_square ? row_square : code_square;
  CodeSize size{static_cast<float>(code_square), static_cast<float>(sqrt(residual) * kUp)};
  if constexpr (kValue == RowValue::kProduct) size.size = static_cast<float>(sqrt(longer) * kUp);
  task.sizes[position] = size;
  if (task.terms != nullptr) task.terms[position] = task.slack.template terms<kValue>(size);
  if (task.least_terms == nullptr) return;
  const bool usable = exists && size.usable();
  task.least_terms[position] = {
      usable ? -size.size * (1.0f + task.slack.slack) : -std::numeric_limits<float>::infinity(), 0};
}

}  // namespace deepclust::cuda
