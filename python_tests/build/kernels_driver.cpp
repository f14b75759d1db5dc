// Kernels of csrc/cpu without torch, on numbers that any machine makes alike: a line for each with a hash of its bits
// ("exact", where sums are of whole numbers) or with a sum of what it gives ("rounded").
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "common/random.h"
#include "cpu/gemm/gemm_tile.h"
#include "cpu/gemm/product.h"
#include "cpu/kmeans/cluster_sums.h"
#include "cpu/kmeans/nearest.h"
#include "cpu/knn/lanes.h"
#include "cpu/mi/joint.h"

namespace deepclust::cpu {
namespace {

template <typename T>
void exact(const char* name, const std::vector<T>& values) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const T value : values) {
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    hash = (hash ^ bits) * 0x100000001b3u;
  }
  std::printf("exact %s %zu %016" PRIx64 "\n", name, sizeof(T), hash);
}

template <typename T>
void rounded(const char* name, const std::vector<T>& values) {
  double sum = 0;
  for (size_t i = 0; i < values.size(); ++i) sum += static_cast<double>(values[i]) * (1.0 + 0.5 * (i % 7));
  std::printf("rounded %s %zu %.9g\n", name, sizeof(T), sum);
}

// Whole numbers from -3 to 3, or numbers in [0, 1).
template <typename T>
std::vector<T> draw(int64_t count, uint64_t stream, bool whole) {
  RandomStream random(7, stream);
  std::vector<T> values(static_cast<size_t>(count));
  for (T& value : values) value = static_cast<T>(whole ? static_cast<double>(random.below(7) - 3) : random.uniform());
  return values;
}

template <typename T>
void products(bool whole) {
  const int64_t m = 37, n = 53, k = 41, panels = round_up(n, kLanes<T>);
  const std::vector<T> a = draw<T>(m * k, 1, whole), b = draw<T>(n * k, 2, whole);
  std::vector<T> a_memory(Panels<T>::size(k, m)), b_memory(Panels<T>::size(k, n));
  const Panels<T> a_rows{a_memory.data(), k, m}, b_rows{b_memory.data(), k, n};
  pack_rows(Matrix<const T>{a.data(), m, k, k, 1}, static_cast<const T*>(nullptr), a_rows, 0);
  pack_rows(Matrix<const T>{b.data(), n, k, k, 1}, static_cast<const T*>(nullptr), b_rows, 0);
  const int64_t rows = round_up(m, kStripRows);
  std::vector<T> tile(static_cast<size_t>(rows * panels)), out(static_cast<size_t>(m * panels));
  gemm_tile(a_rows, 0, m, b_rows, 0, n, tile.data(), panels);
  tile.resize(static_cast<size_t>(m * panels));
  std::vector<T> memory(Panels<T>::size(k, n));
  const Panels<T> laid = panels_of(Matrix<const T>{b.data(), k, n, 1, k}, memory.data());
  product(Matrix<const T>{a.data(), k, m, 1, k}, laid, 0, n, out.data(), panels, false);
  std::vector<int32_t> indices;
  for (int32_t i = 0; i < n; ++i) indices.push_back(i);
  std::vector<T> costs(static_cast<size_t>(n));
  costs_of(true, a.data(), b.data(), k, k, indices.data(), n, costs.data());
  if (whole) {
    exact("gemm_tile", tile);
    exact("product", out);
    exact("costs_of", costs);
  } else {
    rounded("gemm_tile", tile);
    rounded("product", out);
    rounded("costs_of", costs);
  }
}

template <typename T>
void nearest(int64_t d, bool whole) {
  const int64_t n = 300, clusters = 23;
  const std::vector<T> x = draw<T>(n * d, 3, whole), mean(static_cast<size_t>(d), T(0));
  std::vector<int8_t> codes(static_cast<size_t>(round_up(n, kTileRows) * Points<T>::depth_of(d, best_codes(d)) + 64));
  std::vector<CodeBounds> bounds(static_cast<size_t>(n));
  const Points<T> points{x.data(), mean.data(), n, d, best_codes(d), codes.data(), bounds.data()};
  encode_points(points, 0, n);
  CodedCentroids<T> coded(points, clusters);
  coded.centroids = x.data();
  for (int64_t block = 0; block < coded.blocks(); ++block) encode_centroids(points, coded, block);
  coded.find_largest();
  std::vector<int64_t> labels(static_cast<size_t>(n));
  for (int64_t begin = 0; begin < n; begin += kSearchRows)
    assign_points(points, coded, begin, std::min(n, begin + kSearchRows), labels.data() + begin);
  std::vector<T> distances(static_cast<size_t>(n));
  label_distances(x.data(), x.data(), d, labels.data(), 0, n, distances.data());
  std::vector<Move> moves;
  for (int64_t i = 0; i < n; ++i) moves.push_back({i, -1, static_cast<int32_t>(labels[static_cast<size_t>(i)])});
  const std::vector<double> scale(static_cast<size_t>(d), 0x1p40);
  std::vector<int64_t> sums(static_cast<size_t>(clusters * d));
  for (int64_t first = 0; first < d; first += kSumColumns)
    add_moves(Matrix<const T>{x.data(), n, d, d, 1}, mean.data(), scale.data(), nullptr, moves.data(), n, first,
              std::min(d, first + kSumColumns), sums.data(), d);
  exact("nearest", labels);
  exact("cluster_sums", sums);
  if (whole)
    exact("label_distances", distances);
  else
    rounded("label_distances", distances);
}

template <typename T>
void information() {
  const int64_t c = 70, ld = round_up(c, kLanes<T>);
  std::vector<T> joint_memory(static_cast<size_t>(c * ld)), scratch(Joint<T>::scratch_size(c, ld));
  const std::vector<T> counts = draw<T>(c * c, 4, false);
  for (int64_t i = 0; i < c * c; ++i) joint_memory[i / c * ld + i % c] = counts[i] < T(0.2) ? T(0) : counts[i];
  std::vector<double> block_loss(static_cast<size_t>(ceil_div(c, kJointRows)));
  std::vector<T> gradient(static_cast<size_t>(c * c));
  Joint<T> joint;
  joint.data = joint_memory.data();
  joint.rows = joint.cols = c;
  joint.ld = ld;
  joint.bind(scratch.data());
  joint.block_loss = block_loss.data();
  for (int64_t b = 0; b < joint.blocks(); ++b) symmetrise_block(joint, b);
  for (int64_t b = 0; b < joint.blocks(); ++b) marginals_block(joint, b);
  finish_marginals(joint);
  for (int64_t b = 0; b < joint.blocks(); ++b) gradient_block(joint, b);
  finish_loss(joint);
  for (int64_t b = 0; b < joint.blocks(); ++b) scale_block(joint, b, 1.0, gradient.data(), c);
  rounded("information", std::vector<double>{joint.loss});
  rounded("information_gradient", gradient);
}

}  // namespace
}  // namespace deepclust::cpu

int main() {
  using namespace deepclust::cpu;
  for (const bool whole : {true, false}) {
    products<float>(whole);
    products<double>(whole);
    nearest<float>(48, whole);
    nearest<double>(5, whole);
  }
  information<float>();
  information<double>();
}
