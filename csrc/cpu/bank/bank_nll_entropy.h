// bank_nll_entropy on the CPU: the softmax of v bank^T / temperature over all N rows of a bank, in one pass.
//
// With l_j = v m_j / temperature, p = softmax(l) without the row at `index`, m the bank's rows and S the rows that
// count as right:
//
//   entropy = -sum p log p = lse - E[l],      its gradient = -(E[l m] - E[l] E[m]) / temperature,
//   nll = lse of all l - lse of those in S,   its gradient = (E_all[m] - E_S[m]) / temperature.
//
// So running sums of 2^x, x 2^x, 2^x m and x 2^x m, with x = l / ln 2 less the largest so far, hold the gradients when
// the forward pass ends: attention with the bank as keys and values. The row at `index` joins p of the nll at the end,
// in double, so that an nll near 0 keeps its digits and the entropy's softmax has a largest logit of its own.
//
// Work: 2 N B d multiply-adds, 3 N B d for a gradient of the entropy, and N B powers of two, which are a few percent.
// Traffic: the bank once for each block of at most 128 queries, in its own dtype. The queries are the lanes: a tile of
// 96 rows meets the block's panels, which hold queries, by broadcasting from the bank as it lies; a query's largest
// logit and sums never cross lanes; the weights are broadcast in turn to the tile's rows, copied into panels. A tile,
// its logits and the block's sums (~350 KB at d = 128) stay in the second-level cache. Tasks are (block of queries,
// chunk of rows), their bounds a function of the sizes alone; chunks are combined in order.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "../../common/buffer.h"
#include "../../common/half.h"
#include "bank_tile.h"

namespace deepclust::cpu {

inline constexpr double kLn2 = 0.69314718055994530942;

// What is asked for. Gradients cost a product each.
struct BankWanted {
  bool nll, entropy, gradient;
  bool moment_rows() const { return entropy && gradient; }
};

// How queries [queries, depth] and a bank [rows, depth] are cut.
struct BankPlan {
  int64_t queries, rows, depth, ld, block, blocks, chunk_rows, chunks, tile_rows;

  BankPlan(int64_t queries, int64_t rows, int64_t depth, int64_t lanes, BankWanted wanted)
      : queries(queries), rows(rows), depth(depth), ld(round_up(depth, lanes)) {
    // Sums of a block and a tile of rows take half of a second-level cache at most, but where the rows are very long.
    const int64_t most = std::clamp<int64_t>((int64_t{1} << 14) / depth / lanes * lanes, 3 * lanes, 128);
    blocks = std::max<int64_t>(1, ceil_div(queries, most));
    block = round_up(ceil_div(queries, blocks), lanes);
    tile_rows = std::clamp<int64_t>((int64_t{1} << 15) / depth / 8 * 8, 16, 96);
    const int64_t partial_bytes = blocks * block * ld * (wanted.moment_rows() ? 8 : 4);
    const int64_t wanted_chunks = std::max<int64_t>(1, std::min(128 / blocks, (int64_t{16} << 20) / partial_bytes));
    chunk_rows = round_up(std::max<int64_t>(2048, ceil_div(rows, wanted_chunks)), tile_rows);
    chunks = std::max<int64_t>(1, ceil_div(rows, chunk_rows));
  }
  int64_t tasks() const { return blocks * chunks; }
  int64_t first_query(int64_t b) const { return std::min(queries, b * block); }
  int64_t block_queries(int64_t b) const { return std::min(queries, (b + 1) * block) - first_query(b); }
};

// The arguments of a call, and of all tasks what they leave behind.
template <typename S, typename T>
struct BankProblem {
  BankPlan plan;
  BankWanted wanted;
  double temperature;
  const T* v;                // [queries, depth]
  Matrix<const S> bank;      // [rows, depth]
  const int64_t* index;      // [queries], -1 for none
  const int64_t* neighbors;  // [queries, neighbor_count], negative for none
  int64_t neighbor_count;
  T* panels;    // [blocks]: the queries over temperature ln 2, in panels
  T* largest;   // [chunks, blocks * block]
  double* sum;  // [chunks, blocks * block]
  double* moment;
  T* rows;         // [chunks, blocks * block, ld], or null
  T* moment_rows;  // the same, or null

  Panels<T> panels_of_block(int64_t b) const {
    return {panels + b * plan.block * plan.depth, plan.depth, plan.block, 0};
  }
  BankSums<T> sums(int64_t b, int64_t chunk) const {
    const int64_t first = chunk * plan.blocks * plan.block + b * plan.block, wide = first * plan.ld;
    return {largest + first,
            sum + first,
            moment + first,
            rows == nullptr ? nullptr : rows + wide,
            moment_rows == nullptr ? nullptr : moment_rows + wide,
            plan.ld,
            plan.block_queries(b)};
  }
};

// The queries of block b, scaled and laid out: logits are in units of ln 2.
template <typename S, typename T>
void lay_out_queries(const BankProblem<S, T>& problem, int64_t b) {
  const BankPlan& plan = problem.plan;
  const int64_t first = plan.first_query(b), count = plan.block_queries(b);
  const double scale = 1 / (problem.temperature * kLn2);
  const Buffer<T> scaled(count * plan.depth);
  for (int64_t i = 0; i < count * plan.depth; ++i)
    scaled.get()[i] = static_cast<T>(static_cast<double>(problem.v[first * plan.depth + i]) * scale);
  const Panels<T> panels = problem.panels_of_block(b);
  lay_out(Matrix<const T>{scaled.get(), plan.depth, count, 1, plan.depth}, panels, 0);
  // Vectors that hold no query.
  for (int64_t col = round_up(count, kLanes<T>); col < plan.block; col += kLanes<T>)
    for (int64_t k = 0; k < plan.depth; ++k) std::fill_n(panels.at(col) + k * panels.width(col), kLanes<T>, T(0));
}

// Sums of one block over one chunk.
template <typename S, typename T>
void bank_task(const BankProblem<S, T>& problem, int64_t task) {
  const BankPlan& plan = problem.plan;
  const int64_t b = task % plan.blocks, chunk = task / plan.blocks;
  const BankSums<T> sums = problem.sums(b, chunk);
  std::fill_n(sums.largest, plan.block, kNoLogit<T>);
  std::fill_n(sums.sum, plan.block, 0.0);
  std::fill_n(sums.moment, plan.block, 0.0);
  if (sums.rows != nullptr) std::fill_n(sums.rows, plan.block * plan.ld, T(0));
  if (sums.moment_rows != nullptr) std::fill_n(sums.moment_rows, plan.block * plan.ld, T(0));

  const int64_t begin = chunk * plan.chunk_rows, end = std::min(plan.rows, begin + plan.chunk_rows);
  // The rows to leave out, in the order in which tiles meet them.
  std::vector<std::pair<int64_t, int64_t>> excluded;
  for (int64_t q = 0; q < sums.queries; ++q) {
    const int64_t row = problem.index[plan.first_query(b) + q];
    if (row >= begin && row < end) excluded.emplace_back(row, q);
  }
  std::sort(excluded.begin(), excluded.end());

  // An odd number of cache lines from row to row: a column of logits meets all sets of the first-level cache.
  const int64_t ldl = plan.block + kLanes<T> * (plan.block / kLanes<T> % 2 == 0 ? 1 : 2);
  const bool as_it_lies = std::is_same_v<S, T> && problem.bank.col_stride == 1;
  const Buffer<T> logits(plan.tile_rows * ldl), products(problem.wanted.entropy ? plan.tile_rows * ldl : 0);
  const Buffer<T> factor(plan.block), step(plan.block), copy(as_it_lies ? 0 : plan.tile_rows * plan.ld);
  const Buffer<T> panel_memory(sums.rows != nullptr ? Panels<T>::size(plan.tile_rows, plan.depth) : 0);
  const BankTile<T> tile{logits.get(), problem.wanted.entropy ? products.get() : nullptr, factor.get(), step.get(),
                         ldl};
  const Panels<T> queries = problem.panels_of_block(b);
  auto next = excluded.begin();
  for (int64_t first = begin; first < end; first += plan.tile_rows) {
    const int64_t count = std::min(plan.tile_rows, end - first);
    const Matrix<const S> lying = problem.bank.block(first, 0, count, plan.depth);
    Matrix<const T> rows{copy.get(), count, plan.depth, plan.ld, 1};
    if constexpr (std::is_same_v<S, T>) {
      if (as_it_lies) rows = lying;
    }
    if (!as_it_lies) read_rows(lying, copy.get(), plan.ld);
    // First, for it reads the bank from end to end: the products then find it in the second-level cache.
    const Panels<T> row_panels = sums.rows != nullptr ? panels_of(rows, panel_memory.get()) : Panels<T>{};
    const int64_t following = std::min(plan.tile_rows, end - first - count);
    const bool dense = problem.bank.col_stride == 1 && problem.bank.row_stride == plan.depth;
    bank_logits(rows, queries, tile.logits, ldl, lying.data + count * plan.depth,
                dense ? following * plan.depth * int64_t{sizeof(S)} : 0);
    for (; next != excluded.end() && next->first < first + count; ++next)
      tile.logits[(next->first - first) * ldl + next->second] = -std::numeric_limits<T>::infinity();
    bank_weights(tile, count, sums);
    if (sums.rows != nullptr) add_weighted_rows(tile, row_panels, sums);
  }
}

// Where the results go; null where one is not asked for.
template <typename T>
struct BankResults {
  T* nll;           // [queries]
  T* entropy;       // [queries]
  T* nll_grad;      // [queries, depth]
  T* entropy_grad;  // [queries, depth]
};

// All chunks of query i, and the nll's rows. `scratch` is [2, depth].
template <typename S, typename T>
void finish_query(const BankProblem<S, T>& problem, int64_t i, const BankResults<T>& results, double* scratch) {
  const BankPlan& plan = problem.plan;
  const int64_t depth = plan.depth, b = i / plan.block, q = i % plan.block;
  double largest = kNoLogit<T>, sum = 0, moment = 0;
  for (int64_t c = 0; c < plan.chunks; ++c)
    largest = std::max(largest, static_cast<double>(problem.sums(b, c).largest[q]));
  double *mean = scratch, *product = scratch + depth;
  std::fill_n(scratch, 2 * depth, 0.0);
  for (int64_t c = 0; c < plan.chunks; ++c) {
    const BankSums<T> part = problem.sums(b, c);
    // Chunks without a row, all of them left out, add nothing.
    const double step = part.largest[q] > kNoLogit<T> ? static_cast<double>(part.largest[q]) - largest : 0.0;
    const double factor = std::exp2(step);
    sum += factor * part.sum[q];
    moment += factor * (part.moment[q] + step * part.sum[q]);
    if (part.rows == nullptr) continue;
    const T* rows = part.rows + q * plan.ld;
    if (part.moment_rows != nullptr) {
      const T* moments = part.moment_rows + q * plan.ld;
      for (int64_t k = 0; k < depth; ++k)
        product[k] += factor * (static_cast<double>(moments[k]) + step * static_cast<double>(rows[k]));
    }
    for (int64_t k = 0; k < depth; ++k) mean[k] += factor * static_cast<double>(rows[k]);
  }
  // A sum of exactly 0 is that of no rows: all was left out.
  const bool any = sum != 0;
  const double inverse = any ? 1 / sum : 0, mean_x = moment * inverse;
  for (int64_t k = 0; k < depth; ++k) mean[k] *= inverse;
  if (results.entropy != nullptr) results.entropy[i] = static_cast<T>(any ? kLn2 * (std::log2(sum) - mean_x) : 0.0);
  if (results.entropy_grad != nullptr) {
    const double scale = -kLn2 / problem.temperature;
    for (int64_t k = 0; k < depth; ++k)
      results.entropy_grad[i * depth + k] = static_cast<T>(scale * (product[k] * inverse - mean_x * mean[k]));
  }
  if (results.nll != nullptr) finish_nll(problem, i, any ? largest + std::log2(sum) : -INFINITY, mean, results);
}

// `lse`: of all rows but the query's own, in units of ln 2; `mean` [depth]: E[m] over them.
template <typename S, typename T>
void finish_nll(const BankProblem<S, T>& problem, int64_t i, double lse, double* mean, const BankResults<T>& results) {
  const int64_t depth = problem.plan.depth, own = problem.index[i];
  const T* v = problem.v + i * depth;
  const auto element = [&](int64_t row, int64_t k) {
    return static_cast<double>(read(problem.bank.data[row * problem.bank.row_stride + k * problem.bank.col_stride]));
  };
  const auto logit = [&](int64_t row) {
    double dot = 0;
    for (int64_t k = 0; k < depth; ++k) dot += static_cast<double>(v[k]) * element(row, k);
    return dot / (problem.temperature * kLn2);
  };
  // S as a set, in the order of rows.
  std::vector<int64_t> right{own};
  for (int64_t m = 0; m < problem.neighbor_count; ++m) {
    const int64_t row = problem.neighbors[i * problem.neighbor_count + m];
    if (row >= 0) right.push_back(row);
  }
  std::sort(right.begin(), right.end());
  right.erase(std::unique(right.begin(), right.end()), right.end());

  std::vector<double> logits;
  for (const int64_t row : right) logits.push_back(logit(row));
  const double own_logit = logits[std::lower_bound(right.begin(), right.end(), own) - right.begin()];
  const double top = *std::max_element(logits.begin(), logits.end());
  double right_sum = 0;
  for (const double l : logits) right_sum += std::exp2(l - top);
  const double right_lse = top + std::log2(right_sum);
  // All rows: those without the own one, and it.
  const double high = std::max(lse, own_logit), low = std::min(lse, own_logit);
  const double all = high + std::log1p(std::exp2(low - high)) / kLn2;
  // With S the own row alone, log(1 + rest / own) has digits where it is near 0. Rounding must not take it below.
  const double nll = right.size() == 1 ? std::log1p(std::exp2(lse - own_logit)) : kLn2 * (all - right_lse);
  results.nll[i] = static_cast<T>(right.size() == 1 && lse - own_logit > 64 ? kLn2 * (lse - own_logit)
                                  : nll < 0                                 ? 0.0
                                                                            : nll);
  if (results.nll_grad == nullptr) return;

  const double rest = std::exp2(lse - all);
  for (int64_t k = 0; k < depth; ++k) mean[k] *= rest;
  for (size_t s = 0; s < right.size(); ++s) {
    double weight = -std::exp2(logits[s] - right_lse);
    // Of the own row, p less its share of S; with nothing else in S this is -(1 - p).
    if (right[s] == own) weight = right.size() == 1 ? -rest : weight + std::exp2(own_logit - all);
    for (int64_t k = 0; k < depth; ++k) mean[k] += weight * element(right[s], k);
  }
  for (int64_t k = 0; k < depth; ++k) results.nll_grad[i * depth + k] = static_cast<T>(mean[k] / problem.temperature);
}

}  // namespace deepclust::cpu
