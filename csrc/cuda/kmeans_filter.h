// The tensor-core filter of the k-means searches (kmeans_filter_kernel.cuh): sizes, memory.
#pragma once

#include "kmeans_assign.h"
#include "knn_filter.h"
#include "workspace.h"

namespace deepclust {
struct BFloat16;
}

namespace deepclust::cuda {

struct CodeSize;
struct ColumnTerms;
struct RowLimit;
struct FilterEntry;

// Arrays of the device. Codes, sizes and mean of the points of every matrix, made once; the rest for one at a time.
struct CentroidFilter {
  static constexpr int64_t kSlots = 16;     // centroids that a point may have to be compared with
  static constexpr int64_t kFlagRows = 64;  // points that are searched again together
  static constexpr int64_t kFewest = 64;    // clusters: fewer leave half of a tile idle
  static constexpr int64_t kLeastPoints = 4096;
  static constexpr int64_t kStripRows = int64_t{1} << 20;

  KnnFilterPlan plan;  // of one matrix: points are its candidates, and so on
  int64_t batch, strip_rows;
  Workspace memory;
  float* mean;
  BFloat16 *point_codes, *centroid_codes;
  CodeSize *point_sizes, *centroid_sizes;
  ColumnTerms *terms, *least_terms;
  RowLimit* limits;
  FilterEntry* entries;
  unsigned* counts;
  int32_t* again;  // [batch, tiles of kFlagRows]

  // Where it serves: float32 sums, and enough of both sides.
  static bool serves(const AssignPlan& sizes) {
    return sizes.dtype != DType::kDouble && sizes.clusters >= kFewest && sizes.d >= 16 && sizes.n >= kLeastPoints;
  }
  // strip_rows: for tests, which need few.
  CentroidFilter(const AssignPlan& sizes, void* base, int64_t strip_rows = kStripRows);
  int64_t padded() const { return plan.padded_queries(); }
  int64_t tiles() const { return ceil_div(plan.queries, kFlagRows); }
};

// The codes of x, once for all searches.
void code_points(const AssignPlan& sizes, const void* x, const CentroidFilter& filter, void* stream);

}  // namespace deepclust::cuda
