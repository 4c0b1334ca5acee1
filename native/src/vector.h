// A vector of floats, as wide as the instruction set that this is compiled for has them.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#define JAXLSTM_INLINE inline __attribute__((always_inline))
#if defined(__clang__)
#define JAXLSTM_UNROLL _Pragma("unroll")
#else
#define JAXLSTM_UNROLL _Pragma("GCC unroll 8")
#endif

// Nothing that these headers define, and nothing inline that they call, may be shared between
// instruction sets: the linker would keep one copy, perhaps one that the processor can't run.
namespace jaxlstm::JAXLSTM_ISA {

constexpr int W = JAXLSTM_WIDTH;
constexpr int ACCUMULATORS = JAXLSTM_ACCUMULATORS;  // registers left for a tile's sums

typedef float V __attribute__((vector_size(4 * W)));
typedef float Unaligned __attribute__((vector_size(4 * W), aligned(4), may_alias));

JAXLSTM_INLINE V splat(float a) { return a - V{}; }  // and not a + 0, which is not a if that is -0

JAXLSTM_INLINE V load(const float* p) { return *reinterpret_cast<const Unaligned*>(p); }

JAXLSTM_INLINE void store(float* p, V v) { *reinterpret_cast<Unaligned*>(p) = v; }

#if JAXLSTM_WIDTH == 16
JAXLSTM_INLINE __mmask16 first(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
#elif JAXLSTM_WIDTH == 8
JAXLSTM_INLINE __m256i first(int64_t n) {
  __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lanes);
}
#endif

// The first n lanes; the others are zero.
JAXLSTM_INLINE V load(const float* p, int64_t n) {
  if (n >= W) return load(p);
#if JAXLSTM_WIDTH == 16
  return reinterpret_cast<V>(_mm512_maskz_loadu_ps(first(n), p));
#elif JAXLSTM_WIDTH == 8
  return reinterpret_cast<V>(_mm256_maskload_ps(p, first(n)));
#else
  V v = {};
  for (int64_t i = 0; i < n; ++i) v[i] = p[i];
  return v;
#endif
}

JAXLSTM_INLINE void store(float* p, V v, int64_t n) {
  if (n >= W) return store(p, v);
#if JAXLSTM_WIDTH == 16
  _mm512_mask_storeu_ps(p, first(n), reinterpret_cast<__m512>(v));
#elif JAXLSTM_WIDTH == 8
  _mm256_maskstore_ps(p, first(n), reinterpret_cast<__m256>(v));
#else
  for (int64_t i = 0; i < n; ++i) p[i] = v[i];
#endif
}

// x P(x^2) / Q(x^2), a minimax fit of the relative error on [0, 8] whose coefficients were then
// moved by single digits to round well: 3e-7 at most, and never beyond 1. Comparisons are so
// written that a NaN stays one.
JAXLSTM_INLINE V tanh(V x) {
  V most = splat(8.0f);
  x = x > most ? most : x;
  x = x < -most ? -most : x;
  V z = x * x;
  V p = splat(3.039890827949421e-08f);
  p = p * z + 4.356720455689356e-05f;
  p = p * z + 7.093515247106552e-03f;
  p = p * z + 2.667861878871918e-01f;
  p = p * z + 1.9838496446609497f;
  V q = splat(1.6982044142242536e-06f);
  q = q * z + 6.780557450838387e-04f;
  q = q * z + 5.1936812698841095e-02f;
  q = q * z + 9.280692934989929e-01f;
  q = q * z + 1.9838496446609497f;
  return x * p / q;
}

JAXLSTM_INLINE V sigmoid(V x) { return tanh(x * 0.5f) * 0.5f + 0.5f; }

}  // namespace jaxlstm::JAXLSTM_ISA
