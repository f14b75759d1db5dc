#include "bank_nll_entropy.h"

#include <limits>
#include <tuple>

#include "../torch/bank_checks.h"
#include "bank_refusal.h"

namespace deepclust::cuda {

// (v [B, d], bank [N, d], index [B], neighbors [B, m]) -> nll [B], entropy [B] and their gradients [B, d]; what is not
// asked for comes back empty. A bank that is not dense, or of a lower dtype than a v in float64, costs a copy.
std::tuple<Tensor, Tensor, Tensor, Tensor> bank_nll_entropy(const Tensor& v, const Tensor& bank, const Tensor& index,
                                                            const Tensor& neighbors, double temperature, bool nll,
                                                            bool entropy, bool gradient) {
  constexpr const char* kOp = "bank_nll_entropy";
  check_bank_nll_entropy(v, bank, index, neighbors, temperature);
  check_same_device(kOp, "v", v, "bank", bank);
  check_same_device(kOp, "v", v, "index", index);
  check_same_device(kOp, "v", v, "neighbors", neighbors);
  const DeviceScope scope(v);
  const int64_t queries = v.size(0), rows = bank.size(0), depth = v.size(1), count = nll ? neighbors.size(1) : 0;
  const Tensor own = dense(index), right = dense(neighbors);
  std::vector<BankIndices> indices{{"index", own, nll ? 0 : -1}};
  if (count > 0) indices.push_back({"neighbors", right, std::numeric_limits<int64_t>::min()});
  if (queries > 0) refuse_bad_index(kOp, rows, indices, scope.stream());

  const auto result = [&](bool asked, const std::vector<int64_t>& sizes) {
    return empty(asked ? sizes : std::vector<int64_t>{0}, v.scalar_type(), v);
  };
  Tensor nlls = result(nll, {queries}), entropies = result(entropy, {queries});
  Tensor nll_grad = result(nll && gradient, {queries, depth});
  Tensor entropy_grad = result(entropy && gradient, {queries, depth});
  if (queries == 0 || !(nll || entropy)) return {nlls, entropies, nll_grad, entropy_grad};

  const bool widen = v.scalar_type() == ScalarType::Double && bank.scalar_type() != ScalarType::Double;
  const Tensor lying = dense(v), stored = dense(widen ? torch::stable::to(bank, ScalarType::Double) : bank);
  const BankPlan plan(queries, rows, depth, count, temperature, nll, entropy, gradient, dtype_of(stored));
  const Tensor memory = workspace(plan.workspace_bytes(), v);
  bank_nll_entropy(plan, lying.data_ptr(), stored.data_ptr(), static_cast<const int64_t*>(own.data_ptr()),
                   static_cast<const int64_t*>(right.data_ptr()), memory.mutable_data_ptr(), nlls.mutable_data_ptr(),
                   entropies.mutable_data_ptr(), nll_grad.mutable_data_ptr(), entropy_grad.mutable_data_ptr(),
                   scope.stream());
  check_launch(kOp);
  return {nlls, entropies, nll_grad, entropy_grad};
}

}  // namespace deepclust::cuda

STABLE_TORCH_LIBRARY_IMPL(deepclust, CUDA, library) {
  using deepclust::Tensor;
  using Losses = std::tuple<Tensor, Tensor, Tensor, Tensor> (*)(const Tensor&, const Tensor&, const Tensor&,
                                                                const Tensor&, double, bool, bool, bool);
  library.impl("bank_nll_entropy", TORCH_BOX(static_cast<Losses>(&deepclust::cuda::bank_nll_entropy)));
}
