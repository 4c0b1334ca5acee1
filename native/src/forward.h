// The forward sweep.
#pragma once

#include "gates.h"
#include "gru.h"
#include "team.h"

namespace jaxlstm::JAXLSTM_ISA {

template <class Cell>
class ForwardSweep {
  static constexpr int G = Cell::G;

 public:
  static void run(const Forward& p) {
    const int available = is_small(p.sizes) ? 1 : threads_available();
    Team team(make_plan(FORWARD, p.sizes, G, W, available).threads);
    const Plan plan = make_plan(FORWARD, p.sizes, G, W, team.size());
    Cursor needed(nullptr);
    ForwardSweep(p, plan, team, needed);
    Workspace memory(needed.used());
    Cursor cursor(memory.data());
    ForwardSweep sweep(p, plan, team, cursor);
    jaxlstm::fill(sweep.schedule_, p.sizes, p.valid, plan);
    const int64_t bytes = p.sizes.T * p.sizes.B * p.sizes.H * sizeof(float);
    expect_filled(p.hs, bytes);
    expect_filled(p.cs, bytes);
    expect_filled(p.gates, 4 * bytes);
    team.run([](void* self, int me) { static_cast<ForwardSweep*>(self)->work(me); }, &sweep);
  }

 private:
  ForwardSweep(const Forward& p, const Plan& plan, Team& team, Cursor& cursor)
      : p_(p),
        s_(p.sizes),
        plan_(plan),
        team_(team),
        gates_(s_, p.extra != nullptr, plan.steps * s_.B, cursor),
        schedule_(s_, plan, cursor) {}

  void work(int me) {
    const Range all{0, blocks_of(s_.H)}, mine = share(all.end, plan_.threads, me);
    gates_.fill({p_.w_x, p_.w_h, p_.b, p_.extra}, mine);
    const int part = plan_.by_rows ? me : 0;
    Range blocks = plan_.by_rows ? all : mine;
    auto together = [&] {  // or the first thread alone, for all
      team_.barrier();
      if (plan_.by_rows || !team_.alone()) return true;
      blocks = all;
      return me == 0;
    };
    begin(part, blocks);
    if (!together()) return;
    // Threads with sequences of their own may be in different blocks of time: each has rows of z
    // for itself.
    const int64_t at = plan_.steps * schedule_.firsts[part];
    for (int64_t first = 0; first < s_.T; first += plan_.steps) {
      const int64_t end = first + plan_.steps < s_.T ? first + plan_.steps : s_.T;
      const int32_t begin = schedule_.span(first, part).begin;
      const int32_t rows = schedule_.span(end - 1, part).end - begin;
      gates_.project(p_.x, schedule_.entries + begin, rows, at, blocks);
      for (int64_t t = first; t < end; ++t) {
        step(t, part, blocks, at - begin);
        if (!plan_.by_rows && !together()) return;
      }
    }
  }

  // Where c is not kept, the last one's place holds it all along.
  void begin(int part, Range blocks) {
    if (p_.c_last == nullptr) return;
    each_row(part, blocks, [&](int64_t row, int64_t unit, int64_t bytes) {
      std::memcpy(p_.c_last + row * s_.H + unit, p_.c0 + row * s_.H + unit, bytes);
    });
  }

  template <class F>
  void each_row(int part, Range blocks, const F& f) {
    const int64_t unit = blocks.begin * W;
    const int64_t end = blocks.end * W < s_.H ? blocks.end * W : s_.H;
    for (int32_t i = schedule_.firsts[part]; i < schedule_.firsts[part + 1]; ++i) {
      f(schedule_.rows[i], unit, (end - unit) * sizeof(float));
    }
  }

  const float* h_before(int64_t entry) const { return before(p_.h0, p_.hs, entry, s_); }

  const float* c_before(int64_t t, int64_t entry) const {
    if (p_.cs != nullptr) return before(p_.c0, p_.cs, entry, s_);
    return p_.c_last + (entry - t * s_.B) * s_.H;
  }

  void step(int64_t t, int part, Range blocks, int64_t z_offset) {
    const Span now = schedule_.span(t, part);
    for (int64_t i = blocks.begin; i < blocks.end; ++i) {
      const int64_t b = t % 2 == 1 ? blocks.begin + blocks.end - 1 - i : i;
      for_tiles<Gates<Cell>::MOST>(now.end - now.begin, [&](int64_t i, auto count) {
        tile<decltype(count)::value>(t, b, now.begin + i, z_offset);
      });
    }
    if (p_.valid != nullptr) skip(t, part, blocks);
  }

  template <int R>
  __attribute__((noinline)) void tile(int64_t t, int64_t block, int64_t first, int64_t z_offset) {
    const int32_t* entries = schedule_.entries + first;
    const int64_t unit = block * W, lanes = s_.H - unit;
    const float *c[R], *h[R];
    for (int r = 0; r < R; ++r) {
      c[r] = Cell::CELL ? c_before(t, entries[r]) : nullptr;
      h[r] = h_before(entries[r]);
    }
    auto sink = [&](int r, State after, const V(&kept)[4]) __attribute__((always_inline)) {
      const int64_t entry = entries[r], to = entry * s_.H + unit;
      store(p_.hs + to, after.h, lanes);
      if (p_.cs != nullptr) store(p_.cs + to, after.c, lanes);
      if (p_.c_last != nullptr) {
        store(p_.c_last + (entry - t * s_.B) * s_.H + unit, after.c, lanes);
      }
      if (p_.gates != nullptr) {
        float* row = p_.gates + entry * 4 * s_.H + unit;
        JAXLSTM_UNROLL for (int g = 0; g < 4; ++g) store(row + g * s_.H, kept[g], lanes);
      }
    };
    gates_.template step<R>(block, c, h, gates_.z_row(block, first + z_offset), sink);
  }

  // Sequences that have no step t: the carry stays, the gates are zero.
  void skip(int64_t t, int part, Range blocks) {
    each_row(part, blocks, [&](int64_t row, int64_t unit, int64_t bytes) {
      const int64_t entry = t * s_.B + row, to = entry * s_.H + unit;
      if (p_.valid[entry]) return;
      std::memcpy(p_.hs + to, h_before(entry) + unit, bytes);
      if (p_.cs != nullptr) std::memcpy(p_.cs + to, c_before(t, entry) + unit, bytes);
      for (int g = 0; g < 4 && p_.gates != nullptr; ++g) {
        std::memset(p_.gates + (entry * 4 + g) * s_.H + unit, 0, bytes);
      }
    });
  }

  const Forward& p_;
  const Sizes s_;
  const Plan plan_;
  Team& team_;
  Gates<Cell> gates_;
  Timetable schedule_;
};

}  // namespace jaxlstm::JAXLSTM_ISA
