// Powers of two of the kernels, lane by lane: softmax in units of ln 2 needs no other exponential.
#pragma once

#include "vectors.h"

namespace deepclust::cpu {

// What 2^x is made of in a type: `kMagic` + x has x rounded to a whole number, and the exponent's bias, in its last
// bits.
template <typename T>
struct PowerOfTwo;
template <>
struct PowerOfTwo<float> {
  using Bits = uint32_t;
  static constexpr float kMagic = 12582912.0f + 127.0f, kLeast = -126.0f;
  static constexpr int kMantissa = 23;
  // The best of degree 6 on [-1/2, 1/2] by relative error, 2e-9, with its first coefficient set to 1.
  static constexpr float kSeries[] = {1.0f,           0.693147206f,   0.240226469f,   0.0555032878f,
                                      0.00961848896f, 0.00133999312f, 0.000153458122f};
};
template <>
struct PowerOfTwo<double> {
  using Bits = uint64_t;
  static constexpr double kMagic = 6755399441055744.0 + 1023.0, kLeast = -1022.0;
  static constexpr int kMantissa = 52;
  // The same of degree 11: 3e-18.
  static constexpr double kSeries[] = {1.0,
                                       0.69314718055994533046,
                                       0.24022650695910156205,
                                       0.055504108664819921483,
                                       0.0096181291075083350833,
                                       0.0013333558146789950323,
                                       0.00015403530462514613026,
                                       0.0000152527334899608046,
                                       1.3215433089594629037e-6,
                                       1.0178198033328527662e-7,
                                       7.0741056262456593708e-9,
                                       4.4352809446103361611e-10};
};

// 2^x of every lane for x <= 0, within 1 ulp; 2^0 is 1, and NaN stays NaN. Where 2^x would be subnormal it is 0, and x
// is raised to the least exponent, so that x 2^x is 0 and not NaN for x = -infinity.
//
// With n the whole number nearest to x and f = x - n, exact: 2^x = 2^n 2^f, |f| <= 1/2.
template <typename L, typename T>
DC_INLINE typename Register<L, T>::type exp2_lanes(typename Register<L, T>::type& x) {
  using P = PowerOfTwo<T>;
  using V = typename Register<L, T>::type;
  using U = typename Register<L, typename P::Bits>::type;
  constexpr int kDegree = sizeof(P::kSeries) / sizeof(T) - 1;
  const V least = broadcast<L, T>(P::kLeast);
  const auto underflows = x < least;
  x = underflows ? least : x;
  const V shifted = x + P::kMagic;
  const V f = x - (shifted - P::kMagic);
  V series = broadcast<L, T>(P::kSeries[kDegree]);
#pragma GCC unroll 16
  for (int i = kDegree - 1; i >= 0; --i) series = series * f + P::kSeries[i];
  const V power = (V)((U)shifted << P::kMantissa);  // a cast between vectors of one size keeps the bits
  return underflows ? V{} : series * power;
}

}  // namespace deepclust::cpu
