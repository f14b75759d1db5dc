// The one door to libtorch: its stable ABI, so that one binary works with every torch from 2.11 on.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <vector>

namespace deepclust {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// An uninitialised CPU tensor of `like`'s device; contiguous.
inline Tensor empty(const std::vector<int64_t>& sizes, ScalarType dtype, const Tensor& like) {
  return torch::stable::empty(sizes, dtype, std::nullopt, like.device());
}

}  // namespace deepclust
