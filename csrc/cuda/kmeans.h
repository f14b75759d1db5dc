// kmeans on the GPU, as its torch side sees it: how the work is cut, and the launches.
#pragma once

#include "../common/empty_rule.h"
#include "kmeans_assign.h"

namespace deepclust::cuda {

struct KMeansPlan : AssignPlan {
  int64_t max_iter;
  double tol;
  EmptyRule empty;
  bool spherical;
  const double* weights;         // [batch, n] in [0, 1], or null: all 1
  double unit;                   // of the integers that sums of weights are kept in
  int64_t pass_rows, passes;     // of a column's sum: the CPU's cut, so that the means are the same
  int64_t square_rows, squares;  // of the sum of |x - mean|^2: as many parts as keep the whole GPU busy
  bool filtered;                 // tensor cores look first at which centroids may be the nearest

  KMeansPlan(const AssignPlan& sizes, int64_t max_iter, double tol, int64_t empty, bool spherical,
             const double* weights, bool filtered);
  std::size_t workspace_bytes() const;
};

// Arrays of T are of the accumulator's type.
struct KMeansOutputs {
  void* centroids;   // [batch, clusters, d]: the start, and then the result
  int64_t* labels;   // [batch, n]
  void* inertia;     // [batch]
  int64_t* n_iter;   // [batch]
  double* history;   // [batch, max_iter, 3]: objective, share of points that moved, imbalance
  int64_t* empties;  // [batch, max_iter]
};

// Where a batch stands, for the host.
struct KMeansFlags {
  RowFlag bad_row;     // the first row of x that is not finite
  RowFlag bad_start;   // and of the given centroids
  RowFlag unfinished;  // matrices whose centroids still move
};

// Measures the columns of x, with kNoRow in both rows of `flags` before. Nothing else may run where it finds a bad row.
void start_kmeans(const KMeansPlan& plan, const void* x, const KMeansOutputs& out, void* workspace, KMeansFlags* flags,
                  void* stream);

// Iterations [first, last) of the matrices that have not settled.
void iterate_kmeans(const KMeansPlan& plan, const void* x, const KMeansOutputs& out, int64_t first, int64_t last,
                    void* workspace, KMeansFlags* flags, void* stream);

// The last assignment, the inertia, and the records of matrices that settled early.
void finish_kmeans(const KMeansPlan& plan, const void* x, const KMeansOutputs& out, void* workspace, void* stream);

}  // namespace deepclust::cuda
