// The nearest centroid on the GPU, as the torch side of the k-means ops sees it: sizes, arrays, launches.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../common/dtype.h"

namespace deepclust::cuda {

struct AssignPlan {
  int64_t batch, n, d, clusters;  // x [batch, n, d], centroids [batch, clusters, d]
  DType dtype;                    // of x; centroids and distances are of its accumulator's type
};
struct CentroidFilter;

// Of rows that are not finite, the first; kNoRow where there is none. A flag is read by the host, as int64.
using RowFlag = unsigned long long;
inline constexpr RowFlag kNoRow = ~RowFlag{0};

// Lowers `bad_row`, kNoRow before, to the first row of data [rows, cols] that is not finite; looks only where `suspect`
// is not 0, if given.
void find_bad_rows(DType dtype, const void* data, int64_t rows, int64_t cols, const int32_t* suspect, RowFlag* bad_row,
                   void* stream);

// labels [batch, n] and distances [batch, n]. Lowers bad_rows [2], kNoRow before, to the first row of x [batch * n] and
// of the centroids [batch * clusters] that is not finite. What the other outputs hold then means nothing.
// `filter`: for tensor cores, or null.
void kmeans_assign(const AssignPlan& plan, const void* x, const void* centroids, int64_t* labels, void* distances,
                   RowFlag* bad_rows, const CentroidFilter* filter, void* stream);

// What a search over centroids reads and writes beside its points. Arrays of T are of the accumulator's type; null
// where there is nothing to write, or nothing that restricts it.
struct Search {
  const void* x;          // [batch, n, d]
  const void* centroids;  // [batch, clusters, d]
  int32_t* fresh;         // [batch, n]: labels in 32 bits
  int64_t* labels;        // [batch, n]
  void* distances;        // [batch, n]
  const int32_t* done;    // [batch]: matrices to leave alone
  // [batch, 2]: instead of a fresh search, lower `distances` by the centroids from the first to before the second.
  const int64_t* range;
  RowFlag* bad_row;                        // the first row of x that is not finite
  const CentroidFilter* filter = nullptr;  // with the codes of x: the search may look at these first
};
void search_centroids(const AssignPlan& plan, const Search& search, void* stream);

}  // namespace deepclust::cuda
