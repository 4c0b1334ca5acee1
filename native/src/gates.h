// The gates of some steps: the input product over a block of time, then tiles of a few rows.
#pragma once

#include "lstm.h"
#include "pack.h"

namespace jaxlstm::JAXLSTM_ISA {

// The row of a state before the step of an entry, from the initial states and those after.
JAXLSTM_INLINE const float* before(const float* first, const float* after, int64_t entry,
                                   const Sizes& s) {
  return entry < s.B ? first + entry * s.H : after + (entry - s.B) * s.H;
}

struct Weights {
  const float *w_x, *w_h, *b, *extra;
};

template <class Cell>
struct Gates {
  static constexpr int G = Cell::G;
  static constexpr int MOST = most_rows(G);

  const Sizes s;
  const int64_t capacity;  // rows of a block of time
  float *w_x, *w_h;  // (blocks, D or H, G, W)
  float* bias;       // (blocks, G, W)
  float* extra;      // (blocks, EXTRAS, W) or null
  float* z;          // (blocks, capacity, G, W)

  // Of no rows: nothing is taken, and nothing may be done.
  Gates(const Sizes& sizes, bool has_extra, int64_t rows, Cursor& cursor)
      : s(sizes), capacity(rows + 1) {  // one to spare, against strides of a power of two
    const int64_t some = rows > 0 ? blocks_of(s.H) * W : 0;
    w_x = cursor.take(some * s.D * G);
    w_h = cursor.take(some * s.H * G);
    bias = cursor.take(some * G);
    extra = has_extra ? cursor.take(some * Cell::EXTRAS) : nullptr;
    z = cursor.take(some * capacity * G);
  }

  void fill(const Weights& from, Range blocks) {
    int order[G];
    for (int g = 0; g < G; ++g) order[g] = g;
    pack(from.w_x, s.D, s.H, order, blocks, w_x);
    pack(from.w_h, s.H, s.H, order, blocks, w_h);
    pack(from.b, 1, s.H, order, blocks, bias);
    fill_extra(from.extra, s.H, blocks, extra);
  }

  static void fill_extra(const float* from, int64_t H, Range blocks, float* to) {
    if (to == nullptr) return;
    int order[Cell::EXTRAS];
    for (int g = 0; g < Cell::EXTRAS; ++g) order[g] = g;
    pack(from, 1, H, order, blocks, to);
  }

  float* z_row(int64_t block, int64_t row) const {
    return z + (block * capacity + row) * G * W;
  }

  // z = x W + b of n entries, into the rows from `at` on.
  void project(const float* x, const int32_t* entries, int64_t n, int64_t at, Range blocks) {
    for (int64_t b = blocks.begin; b < blocks.end; ++b) {
      for_tiles<MOST>(n, [&](int64_t i, auto count) {
        constexpr int R = decltype(count)::value;
        const float* rows[R];
        for (int r = 0; r < R; ++r) rows[r] = x + entries[i + r] * s.D;
        affine<R, G>(rows, w_x + b * s.D * G * W, s.D, bias + b * G * W, z_row(b, at + i));
      });
    }
  }

  // The states after a step from those before, given as the beginnings of their rows; calls
  // sink(r, state, gates) for each row of the tile.
  template <int R, class Sink>
  JAXLSTM_INLINE void step(int64_t block, const float* const (&c)[R], const float* const (&h)[R],
                           const float* z_tile, const Sink& sink) const {
    const float* p = extra == nullptr ? nullptr : extra + block * Cell::EXTRAS * W;
    const int64_t unit = block * W, lanes = s.H - unit;
    V a[R][G];
    JAXLSTM_UNROLL for (int r = 0; r < R; ++r) {
      JAXLSTM_UNROLL for (int g = 0; g < G; ++g) a[r][g] = Cell::start(g, z_tile + r * G * W, p);
    }
    multiply<R, G>(a, h, w_h + block * s.H * G * W, s.H);
    JAXLSTM_UNROLL for (int r = 0; r < R; ++r) {
      State before{Cell::CELL ? load(c[r] + unit, lanes) : V{}, load(h[r] + unit, lanes)};
      V kept[4];
      State after = Cell::step(a[r], z_tile + r * G * W, p, before, kept);
      sink(r, after, kept);
    }
  }
};

}  // namespace jaxlstm::JAXLSTM_ISA
