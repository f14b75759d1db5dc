// float16 and bfloat16 as kernels see them: 16 bits to be read as float and written rounded to nearest, ties to even.
#pragma once

#include <cstdint>
#include <cstring>

#include "macros.h"

namespace deepclust {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

DC_HOST_DEVICE uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}
DC_HOST_DEVICE float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

// read(x): a stored number as the kernel computes with it.
DC_HOST_DEVICE float read(float x) {
  return x;
}
DC_HOST_DEVICE double read(double x) {
  return x;
}
DC_HOST_DEVICE float read(BFloat16 x) {
  return float_of(static_cast<uint32_t>(x.bits) << 16);
}
DC_HOST_DEVICE float read(Half x) {
#if defined(__CUDA_ARCH__)
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x.bits));
  return value;
#else
  const uint32_t sign = (x.bits & 0x8000u) << 16, exponent = (x.bits >> 10) & 0x1fu, mantissa = x.bits & 0x3ffu;
  if (exponent == 31) return float_of(sign | 0x7f800000u | (mantissa << 13));
  if (exponent > 0) return float_of(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float subnormal = static_cast<float>(mantissa) * 5.9604644775390625e-8f;  // 2^-24
  return float_of(sign | bits_of(subnormal));
#endif
}

// write(value, out): the nearest number that is stored.
DC_HOST_DEVICE void write(float value, float& out) {
  out = value;
}
DC_HOST_DEVICE void write(double value, double& out) {
  out = value;
}
DC_HOST_DEVICE void write(float value, BFloat16& out) {
  const uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000u;
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  out.bits = static_cast<uint16_t>(nan ? sign | 0x7fc0u : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
DC_HOST_DEVICE void write(float value, Half& out) {
#if defined(__CUDA_ARCH__)
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out.bits) : "f"(value));
#else
  const uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u)
    half = 0x7e00u;  // NaN
  else if (magnitude >= 0x477ff000u)
    half = 0x7c00u;  // from 65520 on the nearest is infinity
  else if (magnitude < 0x38800000u)
    half = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);  // the sum's last place is the subnormals' 2^-24
  else
    half = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - (112u << 23)) >> 13;
  out.bits = static_cast<uint16_t>(sign | half);
#endif
}

}  // namespace deepclust
