// Products of a few rows, whose sums stay in registers, with a packed panel of weights.
#pragma once

#include "vector.h"

namespace jaxlstm::JAXLSTM_ISA {

template <int N>
struct Count {
  static constexpr int value = N;
};

constexpr int most_rows(int vectors) { return ACCUMULATORS / vectors; }

// Calls f with n, from 1 to MOST, as a constant.
template <int MOST, class F>
JAXLSTM_INLINE void with_count(int64_t n, const F& f) {
  if constexpr (MOST > 1) {
    if (n < MOST) return with_count<MOST - 1>(n, f);
  }
  f(Count<MOST>{});
}

// Cuts n into nearly equal tiles of at most MOST, and calls f(first, Count of the tile). A sweep
// over weights that are too many for a cache finds more of them there if every second one goes
// backwards.
template <int MOST, class F>
JAXLSTM_INLINE void for_tiles(int64_t n, const F& f, bool backwards = false) {
  if (n <= 0) return;
  const int64_t tiles = (n + MOST - 1) / MOST;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t tile = backwards ? tiles - 1 - i : i;
    const int64_t first = n * tile / tiles, end = n * (tile + 1) / tiles;
    with_count<MOST>(end - first, [&](auto count) { f(first, count); });
  }
}

// sums[r][v] += element(r) row[v]
template <int R, int N, class F>
JAXLSTM_INLINE void rank_one(V (&sums)[R][N], const float* row, const F& element) {
  if constexpr (R < N) {  // hold the smaller operand: 16 registers have no room for the other
    V held[R];
    JAXLSTM_UNROLL for (int r = 0; r < R; ++r) held[r] = splat(element(r));
    JAXLSTM_UNROLL for (int v = 0; v < N; ++v) {
      V w = load(row + v * W);
      JAXLSTM_UNROLL for (int r = 0; r < R; ++r) sums[r][v] = held[r] * w + sums[r][v];
    }
  } else {
    V held[N];
    JAXLSTM_UNROLL for (int v = 0; v < N; ++v) held[v] = load(row + v * W);
    JAXLSTM_UNROLL for (int r = 0; r < R; ++r) {
      V s = splat(element(r));
      JAXLSTM_UNROLL for (int v = 0; v < N; ++v) sums[r][v] = s * held[v] + sums[r][v];
    }
  }
}

// sums[r][v] += sum over k < depth of a[r][k] panel[k][v]
template <int R, int N>
JAXLSTM_INLINE void multiply(V (&sums)[R][N], const float* const (&a)[R], const float* panel,
                             int64_t depth) {
  // A chain of additions waits for each; where a tile has few, several are run side by side.
  constexpr int room = ACCUMULATORS * 2 / 3 / (R * N);
  constexpr int chains = room > 4 ? 4 : room < 1 ? 1 : room;
  auto add = [&](V(&to)[R][N], int64_t k) __attribute__((always_inline)) {
    rank_one<R, N>(to, panel + k * N * W, [&](int r) { return a[r][k]; });
  };
  int64_t k = 0;
  if constexpr (chains > 1) {
    V more[chains - 1][R][N] = {};
    for (; k + chains <= depth; k += chains) {
      add(sums, k);
      JAXLSTM_UNROLL for (int c = 1; c < chains; ++c) add(more[c - 1], k + c);
    }
    JAXLSTM_UNROLL for (int c = 1; c < chains; ++c) {
      JAXLSTM_UNROLL for (int r = 0; r < R; ++r) {
        JAXLSTM_UNROLL for (int v = 0; v < N; ++v) sums[r][v] += more[c - 1][r][v];
      }
    }
  }
  for (; k < depth; ++k) add(sums, k);
}

// out (R, N W) = start (N W) + a panel
template <int R, int N>
__attribute__((noinline)) void affine(const float* const (&a)[R], const float* panel, int64_t depth,
                                      const float* start, float* out) {
  V sums[R][N];
  JAXLSTM_UNROLL for (int r = 0; r < R; ++r) {
    JAXLSTM_UNROLL for (int v = 0; v < N; ++v) sums[r][v] = load(start + v * W);
  }
  multiply<R, N>(sums, a, panel, depth);
  JAXLSTM_UNROLL for (int r = 0; r < R; ++r) {
    JAXLSTM_UNROLL for (int v = 0; v < N; ++v) store(out + (r * N + v) * W, sums[r][v]);
  }
}

// sums (R, N W) += the sum over k < depth of a (depth, R) times rows, of which each has N vectors
template <int R, int N>
__attribute__((noinline)) void outer(const float* a, const float* rows, int64_t stride,
                                     int64_t depth, float* out) {
  V sums[R][N];
  JAXLSTM_UNROLL for (int r = 0; r < R; ++r) {
    JAXLSTM_UNROLL for (int v = 0; v < N; ++v) sums[r][v] = load(out + (r * N + v) * W);
  }
  for (int64_t k = 0; k < depth; ++k) {
    rank_one<R, N>(sums, rows + k * stride, [&](int r) { return a[k * R + r]; });
  }
  JAXLSTM_UNROLL for (int r = 0; r < R; ++r) {
    JAXLSTM_UNROLL for (int v = 0; v < N; ++v) store(out + (r * N + v) * W, sums[r][v]);
  }
}

}  // namespace jaxlstm::JAXLSTM_ISA
