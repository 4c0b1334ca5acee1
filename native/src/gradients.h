// The weights' gradients and the inputs', as products over a block of time.
#pragma once

#include "pack.h"

namespace jaxlstm::JAXLSTM_ISA {

template <class Cell>
struct Gradients {
  static constexpr int G = Cell::G;
  static constexpr int MOST = most_rows(G);
  static constexpr int N = 4;                    // blocks to a tile of a transposed product
  static constexpr int64_t DEPTH = 2048 / W;     // rows of g_z that stay in the first cache
  static constexpr int64_t ROW = 4 * W;          // floats of a row of g_z in one block of units

  const Sizes s;
  const int64_t units, features;  // blocks of H and of D
  const int64_t stride;           // floats from one block of g_z to the next
  float* g_z;                     // (units, rows, 4, W): what Cell::back gives
  float *x_again, *h_again;       // a block's x and h, and a one each, in transposed tiles
  float *sums_x, *sums_h;         // (units, D + 1 or H + 1, G, W): of W and U, and the biases
  float* from_x;                  // (features, units, G, W, W): W transposed

  Gradients(const Sizes& sizes, int64_t rows, Cursor& cursor)
      : s(sizes),
        units(blocks_of(s.H)),
        features(blocks_of(s.D)),
        stride((rows + 1) * ROW) {  // one to spare, against strides of a power of two
    g_z = cursor.take(units * stride);
    x_again = cursor.take((s.D + 1) * rows);
    h_again = cursor.take((s.H + 1) * rows);
    sums_x = cursor.take(units * (s.D + 1) * G * W);
    sums_h = cursor.take(units * (s.H + 1) * G * W);
    from_x = cursor.take(features * W * depth());
  }

  int64_t depth() const { return units * G * W; }  // of a product with g_z

  float* row(int64_t block, int64_t i) const { return g_z + block * stride + i * ROW; }

  // The i-th of n shares of the packing, and zeros for the sums.
  void begin(const float* w_x, int64_t n, int64_t i) const {
    const Range mine = share(units, n, i);
    auto zero = [&](float* sums, int64_t rows) {
      std::memset(sums + mine.begin * rows * G * W, 0,
                  (mine.end - mine.begin) * rows * G * W * sizeof(float));
    };
    zero(sums_x, s.D + 1);
    zero(sums_h, s.H + 1);
    pack_groups(w_x, s.D, Cell::OF_X, {0, features}, n, i, from_x);
  }

  // Of the groups that for_tiles cuts the blocks into, every n-th from the i-th on.
  void pack_groups(const float* w, int64_t rows, const int (&order)[G], Range blocks, int64_t n,
                   int64_t i, float* out) const {
    int64_t group = 0;
    for_tiles<N>(blocks.end - blocks.begin, [&](int64_t at, auto count) {
      const int64_t first = blocks.begin + at;
      if (group++ % n == i) {
        pack_transposed(w, rows, s.H, order, first, count.value, out + first * W * depth());
      }
    });
  }

  // sums[r] += g_z of row rows[r], from the part on that is given, times a group of a packed
  // matrix.
  template <int R, int M>
  JAXLSTM_INLINE void multiply_back(V (&sums)[R][M], const int32_t (&rows)[R], int part,
                                    const float* group) const {
    const float* a[R];
    JAXLSTM_UNROLL for (int r = 0; r < R; ++r) a[r] = row(0, rows[r]) + part * W;
    for (int64_t b = 0; b < units; ++b) {
      multiply<R, M>(sums, a, group + b * G * W * M * W, G * W);
      JAXLSTM_UNROLL for (int r = 0; r < R; ++r) a[r] += stride;
    }
  }

  // Copies x, or h, of n entries so that a tile of columns is read row by row; then a one.
  template <class F>
  void transpose(const F& from, int64_t n, int64_t columns, int64_t shares, int64_t i,
                 float* out) const {
    int64_t tile = 0, tiles = (columns + MOST) / MOST;
    const Range mine = share(tiles, shares, i);
    for_tiles<MOST>(columns + 1, [&](int64_t first, auto count) {
      constexpr int R = decltype(count)::value;
      const int64_t index = tile++;
      if (index < mine.begin || index >= mine.end) return;
      float* to = out + first * n;
      const int last = first + R > columns ? R - 1 : R;
      for (int64_t e = 0; e < n; ++e, to += R) {
        const float* row = from(e) + first;
        if (last == R) {
          JAXLSTM_UNROLL for (int r = 0; r < R; ++r) to[r] = row[r];
        } else {
          for (int r = 0; r < last; ++r) to[r] = row[r];
          to[last] = 1.0f;
        }
      }
    });
  }

  // Adds the products of n rows to the sums of some blocks of units.
  void add(int64_t n, Range blocks) const {
    for (int64_t b = blocks.begin; b < blocks.end; ++b) {
      for (int64_t k = 0; k < n; k += DEPTH) {
        const int64_t depth = n - k < DEPTH ? n - k : DEPTH;
        auto of = [&](const float* again, int64_t rows, float* sums, int part) {
          for_tiles<MOST>(rows, [&](int64_t first, auto count) {
            constexpr int R = decltype(count)::value;
            outer<R, G>(again + first * n + k * R, row(b, k) + part * W, ROW, depth,
                        sums + (b * rows + first) * G * W);
          });
        };
        of(x_again, s.D + 1, sums_x, Cell::FROM_X);
        of(h_again, s.H + 1, sums_h, Cell::FROM_H);
      }
    }
  }

  // g_x of rows of g_z, whose entries are given.
  void to_x(const int32_t* entries, Range rows, float* g_x) const {
    for_tiles<N>(features, [&](int64_t block, auto group) {
      constexpr int M = decltype(group)::value;
      for_tiles<most_rows(N)>(rows.end - rows.begin, [&](int64_t i, auto count) {
        to_x_tile<decltype(count)::value, M>(entries, rows.begin + i, block, g_x);
      });
    });
  }

  template <int R, int M>
  __attribute__((noinline)) void to_x_tile(const int32_t* entries, int64_t first, int64_t block,
                                           float* g_x) const {
    int32_t rows[R];
    for (int r = 0; r < R; ++r) rows[r] = static_cast<int32_t>(first + r);
    V sums[R][M] = {};
    multiply_back<R, M>(sums, rows, Cell::FROM_X, from_x + block * W * depth());
    for (int r = 0; r < R; ++r) {
      float* to = g_x + entries[first + r] * s.D + block * W;
      for (int v = 0; v < M; ++v) store_some(to + v * W, sums[r][v], s.D - (block + v) * W);
    }
  }

  static JAXLSTM_INLINE void store_some(float* to, V v, int64_t lanes) {
    if (lanes > 0) store(to, v, lanes);
  }

  // The sums of some blocks of units, in the order of the weights.
  void write(Range blocks, float* g_w_x, float* g_w_h, float* g_b, float* g_h_bias) const {
    for (int64_t b = blocks.begin; b < blocks.end; ++b) {
      const int64_t unit = b * W, lanes = s.H - unit;
      for (int g = 0; g < G; ++g) {
        auto put = [&](const float* sums, int64_t rows, int64_t i, float* to) {
          store(to + unit, load(sums + ((b * rows + i) * G + g) * W), lanes);
        };
        const int of_x = Cell::OF_X[g], of_h = Cell::OF_H[g];
        for (int64_t i = 0; i < s.D; ++i) put(sums_x, s.D + 1, i, g_w_x + (i * G + of_x) * s.H);
        for (int64_t i = 0; i < s.H; ++i) put(sums_h, s.H + 1, i, g_w_h + (i * G + of_h) * s.H);
        put(sums_x, s.D + 1, s.D, g_b + of_x * s.H);
        if (of_h == Cell::H_BIAS) put(sums_h, s.H + 1, s.H, g_h_bias);
      }
    }
  }
};

}  // namespace jaxlstm::JAXLSTM_ISA
