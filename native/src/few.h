// The forward sweep of a few steps in all, for which packing the weights would cost the most.
#pragma once

#include "forward.h"

namespace jaxlstm::JAXLSTM_ISA {

constexpr int AT_ONCE = 4;  // sequences to a reading of the weights

// y[r] (n) += a[r] (depth) w (depth, n), the weights read once from beginning to end.
template <int R>
__attribute__((noinline)) void add_product(const float* const (&a)[R], const float* w,
                                           int64_t depth, int64_t n, float* const (&y)[R]) {
  constexpr int K = R == 1 ? 8 : 4;
  int64_t k = 0;
  auto add = [&](auto rows) {
    constexpr int M = decltype(rows)::value;
    V s[M][R];
    JAXLSTM_UNROLL for (int i = 0; i < M; ++i) {
      JAXLSTM_UNROLL for (int r = 0; r < R; ++r) s[i][r] = splat(a[r][k + i]);
    }
    for (int64_t j = 0; j < n; j += W) {
      V sums[R];
      JAXLSTM_UNROLL for (int r = 0; r < R; ++r) sums[r] = load(y[r] + j, n - j);
      JAXLSTM_UNROLL for (int i = 0; i < M; ++i) {
        V row = load(w + (k + i) * n + j, n - j);
        JAXLSTM_UNROLL for (int r = 0; r < R; ++r) sums[r] = s[i][r] * row + sums[r];
      }
      JAXLSTM_UNROLL for (int r = 0; r < R; ++r) store(y[r] + j, sums[r], n - j);
    }
    k += M;
  };
  while (k + K <= depth) add(Count<K>{});
  while (k < depth) add(Count<1>{});
}

template <class Cell>
class FewSteps {
  static constexpr int G = Cell::G;

 public:
  static bool fits(const Sizes& s) {
    return s.T > 0 && s.T * ((s.B + AT_ONCE - 1) / AT_ONCE) <= 2;
  }

  static void run(const Forward& p) {
    Cursor needed(nullptr);
    FewSteps(p, needed);
    Workspace memory(needed.used());
    Cursor cursor(memory.data());
    FewSteps(p, cursor).work();
  }

 private:
  FewSteps(const Forward& p, Cursor& cursor) : p_(p), s_(p.sizes), n_(G * p.sizes.H) {
    z_ = cursor.take(AT_ONCE * n_);
    u_ = cursor.take(AT_ONCE * n_);
    extra_ = p.extra == nullptr ? nullptr : cursor.take(blocks_of(s_.H) * Cell::EXTRAS * W);
  }

  void work() {
    Gates<Cell>::fill_extra(p_.extra, s_.H, {0, blocks_of(s_.H)}, extra_);
    for (int64_t t = 0; t < s_.T; ++t) {
      for_tiles<AT_ONCE>(s_.B, [&](int64_t row, auto count) {
        products<decltype(count)::value>(t * s_.B + row);
        for (int r = 0; r < count.value; ++r) finish(t, row + r, z_ + r * n_, u_ + r * n_);
      });
    }
  }

  template <int R>
  void products(int64_t entry) const {
    const float *x[R], *h[R];
    float *z[R], *u[R];
    for (int r = 0; r < R; ++r) {
      x[r] = p_.x + (entry + r) * s_.D;
      h[r] = before(p_.h0, p_.hs, entry + r, s_);
      z[r] = z_ + r * n_;
      u[r] = u_ + r * n_;
      std::memcpy(z[r], p_.b, n_ * sizeof(float));
      std::memset(u[r], 0, n_ * sizeof(float));
    }
    add_product<R>(x, p_.w_x, s_.D, n_, z);
    add_product<R>(h, p_.w_h, s_.H, n_, u);
  }

  void finish(int64_t t, int64_t row, const float* z, const float* u) const {
    const int64_t entry = t * s_.B + row;
    const bool valid = p_.valid == nullptr || p_.valid[entry];
    const float *h = before(p_.h0, p_.hs, entry, s_), *c = nullptr;
    if (Cell::CELL) {
      c = p_.cs != nullptr ? before(p_.c0, p_.cs, entry, s_)
                           : (t > 0 ? p_.c_last : p_.c0) + row * s_.H;
    }
    for (int64_t b = 0; b < blocks_of(s_.H); ++b) {
      const int64_t unit = b * W, lanes = s_.H - unit, to = entry * s_.H + unit;
      State state{Cell::CELL ? load(c + unit, lanes) : V{}, load(h + unit, lanes)};
      V kept[4] = {};
      if (valid) {
        const float* extra = extra_ == nullptr ? nullptr : extra_ + b * Cell::EXTRAS * W;
        V a[G];
        float in[G * W];
        for (int g = 0; g < G; ++g) store(in + g * W, load(z + g * s_.H + unit, lanes));
        for (int g = 0; g < G; ++g) {
          a[g] = Cell::start(g, in, extra) + load(u + g * s_.H + unit, lanes);
        }
        state = Cell::step(a, in, extra, state, kept);
      }
      store(p_.hs + to, state.h, lanes);
      if (p_.cs != nullptr) store(p_.cs + to, state.c, lanes);
      if (p_.c_last != nullptr) store(p_.c_last + row * s_.H + unit, state.c, lanes);
      for (int g = 0; g < 4 && p_.gates != nullptr; ++g) {
        store(p_.gates + (entry * 4 + g) * s_.H + unit, kept[g], lanes);
      }
    }
  }

  const Forward& p_;
  const Sizes s_;
  const int64_t n_;  // of a row of z = x W + b, and of u = h U
  float *z_, *u_, *extra_;
};

}  // namespace jaxlstm::JAXLSTM_ISA
