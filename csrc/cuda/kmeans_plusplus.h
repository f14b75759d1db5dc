// k-means++ on the GPU, as the torch side sees it: what is kept between the rounds, and the launches.
#pragma once

#include "../common/arithmetic.h"
#include "../common/seeding_rule.h"
#include "kmeans_assign.h"
#include "workspace.h"

namespace deepclust::cuda {

struct SeedingPlan : AssignPlan {
  const double* weights;  // [batch, n] in [0, 1], or null: all 1
  int64_t blocks;         // of kWeightBlock points, a matrix

  SeedingPlan(const AssignPlan& sizes, const double* weights)
      : AssignPlan(sizes), weights(weights), blocks(ceil_div(sizes.n, kWeightBlock)) {}
  std::size_t workspace_bytes() const;
  // The rounds that K seeds take where none is rejected too often: a pass whenever they have doubled.
  int64_t rounds() const;
};

// `unfinished` counts the matrices that lack seeds. With weights, a pass over them that the first draw reads.
void start_seeding(const SeedingPlan& plan, int64_t seed, void* workspace, RowFlag* unfinished, void* stream);

// Draws on: seeds [batch, clusters], and x's rows there as centroids [batch, clusters, d]. Repeat until `unfinished` is
// 0.
void draw_rounds(const SeedingPlan& plan, const void* x, int64_t rounds, void* workspace, int64_t* seeds,
                 void* centroids, RowFlag* unfinished, void* stream);

}  // namespace deepclust::cuda
