// The cotangents of the states: one step of the backward sweep, for one thread's share.
#pragma once

#include "gates.h"
#include "gradients.h"
#include "gru.h"

namespace jaxlstm::JAXLSTM_ISA {

// What one thread works on. `pending` has, for each sequence, the row of g_z whose product with
// U is still to be added to g_h, or -1.
struct Share {
  int index, part;
  Range units;
  int32_t *pending, *order;
};

template <class Cell>
class Cotangents {
  static constexpr int N = Gradients<Cell>::N;
  static constexpr int MOST = most_rows(N);

 public:
  // `again` holds the gates of a block of time, (rows, 4, units of whole vectors), where none
  // are kept.
  Cotangents(const Backward& p, const Plan& plan, const Timetable& schedule,
             const Gradients<Cell>& products, const float* again, Cursor& cursor)
      : p_(p), s_(p.sizes), plan_(plan), schedule_(schedule), products_(products), again_(again),
        units_(products.units) {
    const bool peephole = Cell::CELL && p.extra != nullptr;
    extra_ = peephole ? cursor.take(units_ * Cell::EXTRAS * W) : nullptr;
    extra_sums_ = peephole ? cursor.take(plan.parts * units_ * Cell::EXTRAS * W) : nullptr;
    from_h_ = cursor.take(units_ * W * products_.depth());
    g_h_ = cursor.take(s_.B * units_ * W);
    g_c_ = cursor.take(s_.B * units_ * W);
    pending_ = cursor.take<int32_t>(plan.threads * s_.B);
    order_ = cursor.take<int32_t>(plan.threads * s_.B);
  }

  Share share_of(int index) const {
    int32_t *pending = pending_ + index * s_.B, *order = order_ + index * s_.B;
    if (plan_.by_rows) return {index, index, {0, units_}, pending, order};
    return {index, 0, share(units_, plan_.threads, index), pending, order};
  }

  void begin(const Share& s) const {
    products_.pack_groups(p_.w_h, s_.H, Cell::OF_H, s.units, plan_.parts, s.part, from_h_);
    Gates<Cell>::fill_extra(p_.extra, s_.H, share(units_, plan_.threads, s.index), extra_);
    if (extra_ != nullptr) {
      std::memset(extra_sum(s.part, s.units.begin), 0,
                  (s.units.end - s.units.begin) * Cell::EXTRAS * W * sizeof(float));
    }
    for (int64_t row = 0; row < s_.B; ++row) s.pending[row] = -1;
    each(s, [&](int64_t row, int64_t b, int64_t lanes) {
      store(of(g_h_, row, b), load(p_.g_h_last + row * s_.H + b * W, lanes));
      if (Cell::CELL) store(of(g_c_, row, b), load(p_.g_c_last + row * s_.H + b * W, lanes));
    });
  }

  // `start` is the position in the schedule that has row 0 of g_z.
  void step(const Share& s, int64_t t, int64_t start) const {
    const Span now = schedule_.span(t, s.part);
    int32_t waiting = 0, others = now.end - now.begin;
    for (int32_t i = now.begin; i < now.end; ++i) {
      const bool waits = s.pending[schedule_.entries[i] - t * s_.B] >= 0;
      s.order[waits ? waiting++ : --others] = i;
    }
    auto group = [&](int64_t at, auto size) {
      constexpr int M = decltype(size)::value;
      const int64_t block = s.units.begin + at;
      auto tiles = [&](int64_t from, int64_t end, bool waits) {
        for_tiles<MOST>(end - from, [&](int64_t i, auto count) {
          tile<decltype(count)::value, M>(s, t, start, block, s.order + from + i, waits);
        });
      };
      tiles(0, waiting, true);
      tiles(waiting, now.end - now.begin, false);
    };
    for_tiles<N>(s.units.end - s.units.begin, group, t % 2 == 1);
    for (int32_t i = now.begin; i < now.end; ++i) {
      s.pending[schedule_.entries[i] - t * s_.B] = static_cast<int32_t>(i - start);
    }
    if (p_.valid != nullptr) skip(s, t);
  }

  // Adds the products that are pending: g_z makes room for the block of time before.
  void flush(const Share& s) const {
    int32_t waiting = 0;
    for (int32_t i = schedule_.firsts[s.part]; i < schedule_.firsts[s.part + 1]; ++i) {
      if (s.pending[schedule_.rows[i]] >= 0) s.order[waiting++] = schedule_.rows[i];
    }
    for_tiles<N>(s.units.end - s.units.begin, [&](int64_t at, auto group) {
      constexpr int M = decltype(group)::value;
      for_tiles<MOST>(waiting, [&](int64_t i, auto count) {
        flush_tile<decltype(count)::value, M>(s, s.units.begin + at, s.order + i);
      });
    });
    for (int64_t row = 0; row < s_.B; ++row) s.pending[row] = -1;
  }

  void finish(const Share& s) const {
    const Range mine = share(units_, plan_.threads, s.index);
    for (int64_t b = mine.begin; b < mine.end && extra_ != nullptr; ++b) {
      for (int e = 0; e < Cell::EXTRAS; ++e) {
        V sum = {};
        for (int part = 0; part < plan_.parts; ++part) sum += load(extra_sum(part, b) + e * W);
        store(p_.g_extra + e * s_.H + b * W, sum, s_.H - b * W);
      }
    }
    each(s, [&](int64_t row, int64_t b, int64_t lanes) {
      store(p_.g_h0 + row * s_.H + b * W, load(of(g_h_, row, b)), lanes);
      if (Cell::CELL) store(p_.g_c0 + row * s_.H + b * W, load(of(g_c_, row, b)), lanes);
    });
  }

 private:
  float* of(float* state, int64_t row, int64_t block) const {
    return state + (row * units_ + block) * W;
  }

  // Calls f(row, block, lanes) for the thread's part of a state.
  template <class F>
  void each(const Share& s, const F& f) const {
    for (int32_t i = schedule_.firsts[s.part]; i < schedule_.firsts[s.part + 1]; ++i) {
      for (int64_t b = s.units.begin; b < s.units.end; ++b) {
        f(schedule_.rows[i], b, s_.H - b * W);
      }
    }
  }

  float* extra_sum(int part, int64_t block) const {
    return extra_sums_ + (part * units_ + block) * Cell::EXTRAS * W;
  }

  template <int R, int M>
  __attribute__((noinline)) void tile(const Share& s, int64_t t, int64_t start, int64_t block,
                                      const int32_t* positions, bool waits) const {
    int64_t entry[R];
    int32_t from[R];
    V g[R][M];
    for (int r = 0; r < R; ++r) {
      entry[r] = schedule_.entries[positions[r]];
      const int64_t row = entry[r] - t * s_.B;
      from[r] = s.pending[row];
      JAXLSTM_UNROLL for (int v = 0; v < M; ++v) {
        const int64_t unit = (block + v) * W;
        g[r][v] = load(of(g_h_, row, block + v)) +
                  load(p_.g_hs + entry[r] * s_.H + unit, s_.H - unit);
      }
    }
    const float* group = from_h_ + block * W * products_.depth();
    if (waits) products_.template multiply_back<R, M>(g, from, Cell::FROM_H, group);
    JAXLSTM_UNROLL for (int r = 0; r < R; ++r) {
      JAXLSTM_UNROLL for (int v = 0; v < M; ++v) {
        back(s, t, entry[r], positions[r] - start, block + v, g[r][v]);
      }
    }
  }

  JAXLSTM_INLINE void back(const Share& s, int64_t t, int64_t entry, int64_t at, int64_t block,
                           V g_h) const {
    const int64_t row = entry - t * s_.B, unit = block * W, lanes = s_.H - unit;
    const float* from = p_.b == nullptr ? p_.gates + entry * 4 * s_.H + unit
                                             : again_ + at * 4 * units_ * W + unit;
    const int64_t apart = p_.b == nullptr ? s_.H : units_ * W;
    V gates[4];
    JAXLSTM_UNROLL for (int i = 0; i < 4; ++i) gates[i] = load(from + i * apart, lanes);
    if (t > 1) {  // what the step before will read: what is written long ago is in no cache
      const int64_t next = entry - s_.B;
      __builtin_prefetch(p_.g_hs + next * s_.H + unit);
      if (Cell::CELL) __builtin_prefetch(p_.cs + (next - s_.B) * s_.H + unit);
      for (int i = 0; i < 4; ++i) {
        if (p_.b == nullptr) __builtin_prefetch(p_.gates + (next * 4 + i) * s_.H + unit);
      }
    }
    State state{}, after{}, g{V{}, g_h};
    if constexpr (Cell::CELL) {
      state.c = load(before(p_.c0, p_.cs, entry, s_) + unit, lanes);
      after.c = load(p_.cs + entry * s_.H + unit, lanes);
      g.c = load(of(g_c_, row, block));
      if (p_.g_cs != nullptr) g.c += load(p_.g_cs + entry * s_.H + unit, lanes);
    } else {
      state.h = load(before(p_.h0, p_.hs, entry, s_) + unit, lanes);
    }
    const bool extra = extra_ != nullptr;
    V g_z[4];
    g = Cell::back(gates, state, after, extra ? extra_ + block * Cell::EXTRAS * W : nullptr, g,
                   g_z, extra ? extra_sum(s.part, block) : nullptr);
    float* to = products_.row(block, at);
    JAXLSTM_UNROLL for (int i = 0; i < 4; ++i) store(to + i * W, g_z[i]);
    store(of(g_h_, row, block), g.h);
    if (Cell::CELL) store(of(g_c_, row, block), g.c);
  }

  // Sequences that have no step t: their cotangents pass through.
  void skip(const Share& s, int64_t t) const {
    each(s, [&](int64_t row, int64_t b, int64_t lanes) {
      const int64_t entry = t * s_.B + row, from = entry * s_.H + b * W;
      if (p_.valid[entry]) return;
      if (b == 0) std::memset(p_.g_x + entry * s_.D, 0, s_.D * sizeof(float));
      float *g_h = of(g_h_, row, b), *g_c = of(g_c_, row, b);
      store(g_h, load(g_h) + load(p_.g_hs + from, lanes));
      if (p_.g_cs != nullptr) store(g_c, load(g_c) + load(p_.g_cs + from, lanes));
    });
  }

  template <int R, int M>
  __attribute__((noinline)) void flush_tile(const Share& s, int64_t block,
                                            const int32_t* rows) const {
    int32_t from[R];
    V g[R][M];
    for (int r = 0; r < R; ++r) {
      from[r] = s.pending[rows[r]];
      for (int v = 0; v < M; ++v) g[r][v] = load(of(g_h_, rows[r], block + v));
    }
    const float* group = from_h_ + block * W * products_.depth();
    products_.template multiply_back<R, M>(g, from, Cell::FROM_H, group);
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < M; ++v) store(of(g_h_, rows[r], block + v), g[r][v]);
    }
  }

  const Backward& p_;
  const Sizes s_;
  const Plan plan_;
  const Timetable& schedule_;
  const Gradients<Cell>& products_;
  const float* again_;
  const int64_t units_;
  float *extra_, *extra_sums_, *from_h_, *g_h_, *g_c_;
  int32_t *pending_, *order_;
};

}  // namespace jaxlstm::JAXLSTM_ISA
