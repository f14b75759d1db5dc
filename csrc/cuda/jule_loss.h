// jule_loss on the GPU, as its torch side sees it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../common/dtype.h"
#include "workspace.h"

namespace deepclust::cuda {

struct JulePlan {
  int64_t size, d;  // z [size, d]
  DType dtype;
  int64_t n_negatives;

  std::size_t workspace_bytes() const;
};

// z, labels [size] and z_grad [size, d] are dense; loss and z_grad are of the accumulator's type.
void jule_loss_forward(const JulePlan& plan, const void* z, const int64_t* labels, const int64_t* seed, double gamma,
                       double margin, void* workspace, void* loss, void* z_grad, void* stream);

}  // namespace deepclust::cuda
