// What the raw bank ops ask of their arguments, on every device.
#pragma once

#include "checks.h"
#include "dispatch.h"

namespace deepclust {

inline void check_bank(const char* op, const Tensor& bank) {
  STD_TORCH_CHECK(bank.dim() == 2 && is_floating(bank), op, ": 'bank' must be a floating-point matrix (N, d)");
  STD_TORCH_CHECK(bank.size(0) >= 1 && bank.size(1) >= 1, op, ": 'bank' must have at least one row and one column");
}

// (B, d) in the accumulator's dtype: float64 where the bank is, and not below it.
inline void check_bank_rows(const char* op, const char* arg, const Tensor& rows, const Tensor& bank) {
  STD_TORCH_CHECK(rows.dim() == 2 && rows.size(1) == bank.size(1) &&
                      (rows.scalar_type() == ScalarType::Double ||
                       (rows.scalar_type() == ScalarType::Float && bank.scalar_type() != ScalarType::Double)),
                  op, ": '", arg,
                  "' must be (B, d) with the bank's d, float32, or float64 (always with a float64 bank)");
}

inline void check_bank_index(const char* op, const Tensor& index, const Tensor& rows) {
  STD_TORCH_CHECK(index.scalar_type() == ScalarType::Long && has_sizes(index, {rows.size(0)}), op,
                  ": 'index' must be int64, one for each row");
}

inline void check_bank_nll_entropy(const Tensor& v, const Tensor& bank, const Tensor& index, const Tensor& neighbors,
                                   double temperature) {
  const char* const op = "bank_nll_entropy";
  check_bank(op, bank);
  check_bank_rows(op, "v", v, bank);
  check_bank_index(op, index, v);
  STD_TORCH_CHECK(neighbors.scalar_type() == ScalarType::Long && neighbors.dim() == 2 && neighbors.size(0) == v.size(0),
                  op, ": 'neighbors' must be int64 (B, m)");
  DC_CHECK(temperature > 0, "bank_nll_entropy", "temperature", "above 0");
}

}  // namespace deepclust
