// bank_update_: row <- normalise(momentum row + (1 - momentum) feature), one sample after another, so that a row that
// is named twice is updated twice, in the order of the batch. Work and traffic are those of B rows; sums in double.
#include <cmath>

#include "../../common/buffer.h"
#include "../../torch/bank_checks.h"
#include "bank_indices.h"

namespace deepclust::cpu {
namespace {

template <typename S, typename T>
void update_row(S* row, int64_t stride, const T* feature, int64_t depth, double momentum, double* mixed) {
  double largest = 0;
  for (int64_t k = 0; k < depth; ++k) {
    mixed[k] = momentum * static_cast<double>(read(row[k * stride])) + (1 - momentum) * static_cast<double>(feature[k]);
    // NaN wins.
    if (!(std::abs(mixed[k]) <= largest)) largest = std::abs(mixed[k]);
  }
  // By the largest entry first: squares neither over- nor underflow. A zero row stays zero.
  double squares = 0;
  if (largest != 0)
    for (int64_t k = 0; k < depth; ++k) squares += (mixed[k] / largest) * (mixed[k] / largest);
  const double length = largest != 0 ? std::sqrt(squares) : 1;
  if (largest == 0) largest = 1;
  for (int64_t k = 0; k < depth; ++k) {
    const double value = mixed[k] / largest / length;
    if constexpr (std::is_same_v<S, double>)
      row[k * stride] = value;
    else
      write(static_cast<float>(value), row[k * stride]);
  }
}

}  // namespace

void bank_update(Tensor bank, const Tensor& index, const Tensor& features, double momentum) {
  check_bank("bank_update_", bank);
  check_bank_rows("bank_update_", "features", features, bank);
  check_bank_index("bank_update_", index, features);
  DC_CHECK(momentum >= 0 && momentum <= 1, "bank_update_", "momentum", "between 0 and 1");
  const Tensor rows = features.is_contiguous() ? features : torch::stable::contiguous(features);
  const Tensor own = index.is_contiguous() ? index : torch::stable::contiguous(index);
  check_indices("bank_update_", "index", own, bank.size(0), 0);
  const int64_t count = index.size(0), depth = bank.size(1);
  const Buffer<double> mixed(depth);
  dispatch_accumulator(features.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    dispatch_bank<T>(bank, [&](const auto& stored) {
      using S = std::remove_const_t<std::remove_pointer_t<decltype(stored.data)>>;
      for (int64_t i = 0; i < count; ++i)
        update_row(const_cast<S*>(stored.data) + static_cast<const int64_t*>(own.data_ptr())[i] * stored.row_stride,
                   stored.col_stride, static_cast<const T*>(rows.data_ptr()) + i * depth, depth, momentum, mixed.get());
    });
  });
}

}  // namespace deepclust::cpu

STABLE_TORCH_LIBRARY_IMPL(deepclust, CPU, library) {
  library.impl("bank_update_", TORCH_BOX(&deepclust::cpu::bank_update));
}
