// The three steps of a tile of bank_nll_entropy: logits of a few rows of the bank for a block of queries, their
// weights, and the sums of weighted rows. See bank_nll_entropy.h.
#pragma once

#include <cstdint>

#include "../../common/matrix.h"
#include "../gemm/product.h"

namespace deepclust::cpu {

// Below every logit: the largest of no logits. Finite, so that -infinity less it is no NaN.
template <typename T>
inline constexpr T kNoLogit = static_cast<T>(-0x1p126);

// The running sums of a block of queries over the rows seen so far, with x = logit - largest, in units of ln 2:
template <typename T>
struct BankSums {
  T* largest;       // [queries]: the largest logit
  double* sum;      // [queries]: sum 2^x
  double* moment;   // [queries]: sum x 2^x
  T* rows;          // [queries, ld]: sum 2^x row; null where no gradient is wanted
  T* moment_rows;   // [queries, ld]: sum x 2^x row; null where no gradient of an entropy is wanted
  int64_t ld;       // whole vectors
  int64_t queries;  // without those that fill up the last vector
};

// Scratch of a tile. `logits` and `products` are [rows, ldl]; both rows start `ldl` apart.
template <typename T>
struct BankTile {
  T* logits;    // then the weights 2^x
  T* products;  // x 2^x; null where no entropy is wanted
  T* factor;    // [queries]: what older sums are multiplied by when a larger logit comes
  T* step;      // [queries]: how much smaller the older x become
  int64_t ldl;
};

// Rows of the bank in the accumulator's type, [bank.rows, ld] from one element on to the next.
template <typename S, typename T>
void read_rows(const Matrix<const S>& bank, T* out, int64_t ld);

// logits [rows.rows, ldl] = rows queries^T, the queries as panels [depth, ..]; rows' elements lie next to each other.
// Meanwhile what the next tile reads is fetched into the second-level cache: `next_bytes` from `next` on.
template <typename T>
void bank_logits(const Matrix<const T>& rows, const Panels<T>& queries, T* logits, int64_t ldl, const void* next,
                 int64_t next_bytes);

// Logits to weights, sums and moments of `rows` rows added; sums of rows are rescaled where a larger logit came.
template <typename T>
void bank_weights(const BankTile<T>& tile, int64_t rows, const BankSums<T>& sums);

// sums.rows += weights^T rows and sums.moment_rows += products^T rows, the rows as panels [rows, ld].
template <typename T>
void add_weighted_rows(const BankTile<T>& tile, const Panels<T>& rows, const BankSums<T>& sums);

}  // namespace deepclust::cpu
