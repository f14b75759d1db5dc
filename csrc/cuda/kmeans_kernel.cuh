// Lloyd's iterations on the GPU: assign every point, move every centroid to the mean of its members.
//
//   S_k = sum over members of w (x - mean),   W_k = sum of w,   c_k = mean + S_k / W_k,
//   objective = sum_i w_i |x_i - c_{a(i)}|^2 = sum_i w_i |y_i|^2 - 2 sum_k <z_k, S_k> + sum_k W_k |z_k|^2
//
// with y = x - mean and z = c - mean, as on the CPU (cpu/kmeans/kmeans.h). S_k and W_k are exact integers
// (cluster_sums_kernel.cuh), so the same labels give the same centroids as there; only on the sphere does the order in
// which a norm is summed show, in the last bits of a double.
//
// An iteration is five launches: nearest_centroids, count_moves (whose last block lays the moves out), place_moves,
// sum_moves, and finish_iteration: a cluster to a warp, and the last of a matrix's warps lets its block write the
// record and see whether the matrix goes on. Every matrix has a flag that says whether it has settled, and then all of
// them return at once, so the host need not look. Empty clusters are rare: one block finds a point for each, in order,
// by walking over all of them. Where tensor cores look first (kmeans_filter_kernel.cuh), four more launches a matrix
// come before nearest_centroids.
//
// Estimates for an H100 (132 multiprocessors at 1.755 GHz, four instructions a cycle each, 3.35 TB/s, 2.5 us a launch),
// an iteration at 1,000,000 x 256: ten clusters take .68 ms of assignment (measured on an H200), and where half of the
// points move .55 ms of sums (cluster_sums_kernel.cuh), .03 of counting and placing, .01 of launches: 1.3 ms, and .75
// once few move. By nine launches, with all points counted on ten addresses, twenty iterations took 1.54 ms each on an
// H200. A thousand clusters: 2 to 3 ms by the filter, .4 of sums, .02 for all else. At 60,000 points and ten clusters:
// 35 us of assignment, 13 of launches where nine took 23, some 30 of the rest. finish_iteration takes a warp 17
// instructions for 32 columns of a cluster's terms and 57 for their move: 600,000 at a thousand clusters, below 1 us
// beside latency.
#pragma once

#include "cluster_moves_kernel.cuh"

namespace deepclust::cuda {

// One batch in the making.
template <typename T>
struct Lloyd {
  KMeansPlan plan;
  ClusterSums<T> clusters;
  double* terms;       // [batch, clusters, 2]: <z_k, S_k> and W_k |z_k|^2
  Integer* step;       // [batch]: the largest squared step of a centroid, a double's bits
  T* distances;        // [batch, n]
  double* block_sums;  // [batch, blocks] of distances
  T* centroids;        // [batch, clusters, d]
  int64_t* labels;     // [batch, n]
  T* inertia;          // [batch]
  int64_t* n_iter;     // [batch]
  double* history;     // [batch, max_iter, 3]
  int64_t* empties;    // [batch, max_iter]
  KMeansFlags* flags;

  Lloyd(Workspace& memory, const KMeansPlan& plan, const KMeansOutputs& out, KMeansFlags* flags)
      : plan(plan),
        clusters(memory, plan),
        terms(memory.take<double>(plan.batch * plan.clusters * 2)),
        step(memory.take<Integer>(plan.batch)),
        distances(memory.take<T>(plan.batch * plan.n)),
        block_sums(memory.take<double>(plan.batch * blocks(plan.n))),
        centroids(static_cast<T*>(out.centroids)),
        labels(out.labels),
        inertia(static_cast<T*>(out.inertia)),
        n_iter(out.n_iter),
        history(out.history),
        empties(out.empties),
        flags(flags) {}
  static int64_t blocks(int64_t n) { return ceil_div(n, kWeightBlock); }
  DC_HOST_DEVICE static int64_t cluster_blocks(int64_t clusters) { return ceil_div(clusters, kWarps); }
};

template <typename T>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads) clear_clusters(const Lloyd<T> all) {
  const KMeansPlan& plan = all.plan;
  for (int64_t i = thread_index(); i < plan.batch * plan.clusters * plan.d; i += thread_count())
    all.clusters.sums[i] = 0;
  for (int64_t i = thread_index(); i < plan.batch * plan.clusters; i += thread_count())
    all.clusters.count[i] = all.clusters.events[i] = 0;
  for (int64_t i = thread_index(); plan.weights != nullptr && i < plan.batch * plan.clusters; i += thread_count())
    all.clusters.total[i] = 0;
  for (int64_t i = thread_index(); i < plan.batch * plan.n; i += thread_count()) all.labels[i] = -1;
  for (int64_t i = thread_index(); i < plan.batch; i += thread_count()) {
    all.clusters.done[i] = 0;
    all.clusters.arrived[i] = 0;
    all.step[i] = 0;
    all.n_iter[i] = 0;
  }
  if (thread_index() != 0) return;
  *all.clusters.suspect = 0;
  all.flags->unfinished = static_cast<RowFlag>(plan.batch);
}

// What a cluster adds to the objective, in the warp's first lane.
template <typename T>
DC_DEVICE void write_terms(const Lloyd<T>& all, int64_t item, int64_t cluster) {
  const KMeansPlan& plan = all.plan;
  double product = 0, square = 0;
  for (int64_t j = threadIdx.x % kWarp; j < plan.d; j += kWarp) {
    const double mean = static_cast<double>(all.clusters.mean[item * plan.d + j]);
    const double z = static_cast<double>(all.centroids[cluster * plan.d + j]) - mean;
    const double sum = static_cast<double>(signed_of(all.clusters.sums[cluster * plan.d + j]));
    product += z * (sum * all.clusters.grain[item * plan.d + j]);
    square += z * z;
  }
  product = warp_sum(product);
  square = warp_sum(square);
  if (threadIdx.x % kWarp != 0) return;
  all.terms[cluster * 2] = product;
  all.terms[cluster * 2 + 1] = cluster_weight(plan, all.clusters, cluster) * square;
}

// One matrix's record and empty clusters, by one block.
template <typename E>
struct Assignment {
  using T = accumulator_t<E>;
  const Lloyd<T>& all;
  const E* x;
  int64_t item;

  DC_DEVICE Integer* count() const { return all.clusters.count + item * all.plan.clusters; }
  DC_DEVICE int64_t members(int64_t k) const { return signed_of(count()[k]); }
  DC_DEVICE double weight(int64_t k) const {
    return cluster_weight(all.plan, all.clusters, item * all.plan.clusters + k);
  }
  DC_DEVICE int64_t* labels() const { return all.labels + item * all.plan.n; }
  DC_DEVICE T* distances() const { return all.distances + item * all.plan.n; }

  DC_DEVICE void record(int64_t iteration) const {
    const KMeansPlan& plan = all.plan;
    double sums[6] = {};  // cross terms, own terms, squared weights, weights, empty clusters, squares
    const volatile double* const terms = all.terms;  // from memory, not from this multiprocessor's cache
    for (int64_t k = threadIdx.x; k < plan.clusters; k += kThreads) {
      const double size = weight(k);
      sums[0] += terms[(item * plan.clusters + k) * 2];
      sums[1] += terms[(item * plan.clusters + k) * 2 + 1];
      sums[2] += size * size;
      sums[3] += size;
      sums[4] += members(k) == 0 ? 1 : 0;
    }
    for (int64_t part = threadIdx.x; part < plan.squares; part += kThreads)
      sums[5] += all.clusters.part_squares[item * plan.squares + part];
    for (double& sum : sums) {
      sum = block_sum(sum);
      DC_SYNC();  // its memory is free again
    }
    if (threadIdx.x == 0) {
      const double objective = sums[5] - 2.0 * sums[0] + sums[1], n = static_cast<double>(plan.n);
      // At first every point comes from nowhere, later it leaves a cluster as well.
      const int64_t moved = all.clusters.event_total[item] / (iteration == 0 ? 1 : 2);
      double* const record = all.history + (item * plan.max_iter + iteration) * 3;
      record[0] = objective > 0 ? objective : 0;
      record[1] = static_cast<double>(moved) / n;
      record[2] = sums[2] * static_cast<double>(plan.clusters) / sums[3] / sums[3];
      all.empties[item * plan.max_iter + iteration] = static_cast<int64_t>(sums[4]);
    }
  }

  // The heaviest cluster; -1 where it has no second member.
  DC_DEVICE int64_t largest() const {
    Best best;
    for (int64_t k = threadIdx.x; k < all.plan.clusters; k += kThreads) best.offer(weight(k), k);
    best = block_best(best);
    return members(best.index) > 1 ? best.index : -1;
  }
  // The farthest point of a cluster, or of all with more than one member; -1 where they lie on their centroids.
  DC_DEVICE int64_t farthest(int64_t of_cluster) const {
    Best best;
    for (int64_t i = threadIdx.x; i < all.plan.n; i += kThreads) {
      const int64_t label = labels()[i];
      const bool eligible = of_cluster < 0 ? members(label) > 1 : label == of_cluster;
      if (eligible && distances()[i] > T(0) && units_at(all.plan, item * all.plan.n + i) > 0)
        best.offer(static_cast<double>(distances()[i]), i);
    }
    DC_SYNC();  // block_best's memory is free
    return block_best(best).index;
  }
  DC_DEVICE void move(int64_t point, int64_t to) const {
    const KMeansPlan& plan = all.plan;
    const int64_t from = labels()[point];
    DC_SYNC();  // all know where it comes from
    for (int64_t j = threadIdx.x; j < plan.d; j += kThreads) {
      const T value = read(x[(item * plan.n + point) * plan.d + j]);
      const int64_t column = item * plan.d + j;
      const auto whole = static_cast<Integer>(fixed_point(
          value, all.clusters.mean[column], weight_at(plan, item * plan.n + point), all.clusters.scale[column]));
      all.clusters.sums[(item * plan.clusters + from) * plan.d + j] -= whole;
      all.clusters.sums[(item * plan.clusters + to) * plan.d + j] += whole;
    }
    if (threadIdx.x == 0) {
      --count()[from];
      ++count()[to];
      if (plan.weights != nullptr) {
        const Integer units = units_at(plan, item * plan.n + point);
        all.clusters.total[item * plan.clusters + from] -= units;
        all.clusters.total[item * plan.clusters + to] += units;
      }
      labels()[point] = to;
      distances()[point] = T(0);
    }
    DC_SYNC();
  }
  // Moves one point to each empty cluster, as long as there is one to move.
  DC_DEVICE void seed_empty_clusters() const {
    for (int64_t k = 0; k < all.plan.clusters; ++k) {
      if (members(k) > 0) continue;
      int64_t point = -1;
      if (all.plan.empty == EmptyRule::kSplit) {
        const int64_t cluster = largest();
        if (cluster >= 0) point = farthest(cluster);
      }
      if (point < 0) point = farthest(-1);
      if (point < 0) return;
      move(point, k);
    }
  }
};

// Moves a centroid to the mean of its members, on the unit sphere where that is asked for; a cluster to a warp. An
// empty cluster's stays, and so does one whose members cancel out on the sphere.
template <typename T>
DC_DEVICE void move_centroid(const Lloyd<T>& all, int64_t item, int64_t cluster) {
  const KMeansPlan& plan = all.plan;
  const double count = static_cast<double>(signed_of(all.clusters.count[cluster]));
  if (count == 0) return;
  const double weight = cluster_weight(plan, all.clusters, cluster);
  const auto fresh = [&](int64_t j) {
    const double sum = static_cast<double>(signed_of(all.clusters.sums[cluster * plan.d + j]));
    const double mean = static_cast<double>(all.clusters.mean[item * plan.d + j]);
    return mean + sum * all.clusters.grain[item * plan.d + j] / weight;
  };
  double norm = 1;
  if (plan.spherical) {
    norm = 0;
    for (int64_t j = threadIdx.x % kWarp; j < plan.d; j += kWarp) norm += fresh(j) * fresh(j);
    norm = sqrt(warp_sum(norm));
    if (!(norm > 1e-12)) return;
  }
  double step = 0;
  for (int64_t j = threadIdx.x % kWarp; j < plan.d; j += kWarp) {
    T& centroid = all.centroids[cluster * plan.d + j];
    const T value = static_cast<T>(fresh(j) / norm);
    const double difference = static_cast<double>(value) - static_cast<double>(centroid);
    // The sums know a member to 1 / scale: what is less is their rounding, and a centroid that starts on its only
    // member stays there.
    if (fabs(difference) * all.clusters.scale[item * plan.d + j] * weight <= count) continue;
    step += difference * difference;
    centroid = value;
  }
  step = warp_sum(step);
  Integer bits;  // of doubles from 0 on, in the doubles' order
  memcpy(&bits, &step, sizeof(bits));
  if (threadIdx.x % kWarp == 0) atomicMax(&all.step[item], bits);
}

// What is left of an iteration once the sums are there: a cluster to a warp, its terms and its new centroid. The last
// to be done with a matrix lets its block write the record and see whether the matrix goes on. Where a cluster is empty
// and is to get a point, that block does so first, and moves all centroids itself.
template <typename E>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads, 1)
    finish_iteration(const Lloyd<accumulator_t<E>> all, const E* x, int64_t iteration) {
  DC_SHARED(int, last, kWarps);
  const KMeansPlan& plan = all.plan;
  const int64_t blocks = all.cluster_blocks(plan.clusters), item = blockIdx.x / blocks;
  if (all.clusters.done[item] != 0) return;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t k = blockIdx.x % blocks * kWarps + warp, first = item * plan.clusters;
  const bool seeds = all.clusters.vacant[item] != 0 && plan.empty != EmptyRule::kKeep;
  if (k < plan.clusters) {
    write_terms(all, item, first + k);
    if (!seeds) move_centroid(all, item, first + k);
  }
  if (lane == 0) {
    __threadfence();  // its terms and its step are there before the count says so
    last[warp] =
        k < plan.clusters && atomicAdd(&all.clusters.arrived[item], 1u) + 1 == static_cast<unsigned>(plan.clusters);
  }
  DC_SYNC();
  bool ends = false;
  DC_UNROLL
  for (int other = 0; other < kWarps; ++other) ends = ends || last[other] == 1;
  if (!ends) return;
  __threadfence();
  const Assignment<E> assignment{all, x, item};
  assignment.record(iteration);
  if (seeds) {
    assignment.seed_empty_clusters();
    for (int64_t other = warp; other < plan.clusters; other += kWarps) move_centroid(all, item, first + other);
    DC_SYNC();  // all steps are counted
  }
  if (threadIdx.x != 0) return;
  const Integer bits = *const_cast<const volatile Integer*>(all.step + item);
  double step;
  memcpy(&step, &bits, sizeof(step));
  all.step[item] = 0;
  all.clusters.arrived[item] = 0;
  all.n_iter[item] = iteration + 1;
  if (!(step <= plan.tol)) return;
  all.clusters.done[item] = 1;
  atomicAdd(&all.flags->unfinished, ~RowFlag{0});
}

// One matrix to a block: its inertia, and its last record again for the iterations that it did not need.
template <typename T>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads) finish_matrices(const Lloyd<T> all) {
  const int64_t item = blockIdx.x, blocks = ceil_div(all.plan.n, kWeightBlock);
  double sum = 0;
  for (int64_t block = threadIdx.x; block < blocks; block += kThreads) sum += all.block_sums[item * blocks + block];
  sum = block_sum(sum);
  if (threadIdx.x == 0) all.inertia[item] = static_cast<T>(sum);
  const int64_t made = all.n_iter[item];
  double* const history = all.history + item * all.plan.max_iter * 3;
  int64_t* const empties = all.empties + item * all.plan.max_iter;
  for (int64_t rest = made + threadIdx.x; made > 0 && rest < all.plan.max_iter; rest += kThreads) {
    history[rest * 3] = history[(made - 1) * 3];
    history[rest * 3 + 1] = 0;
    history[rest * 3 + 2] = history[(made - 1) * 3 + 2];
    empties[rest] = empties[made - 1];
  }
}

}  // namespace deepclust::cuda
