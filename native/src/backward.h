// The backward sweep, in blocks of time whose products with x and h follow at once, while what
// they need is in cache.
#pragma once

#include "cotangents.h"
#include "team.h"

namespace jaxlstm::JAXLSTM_ISA {

template <class Cell>
class BackwardSweep {
  static constexpr int G = Cell::G;

 public:
  static void run(const Backward& p) {
    const int available = is_small(p.sizes) ? 1 : threads_available();
    Team team(make_plan(BACKWARD, p.sizes, G, W, available).threads);
    const Plan plan = make_plan(BACKWARD, p.sizes, G, W, team.size());
    Cursor needed(nullptr);
    BackwardSweep(p, plan, team, needed);
    Workspace memory(needed.used());
    Cursor cursor(memory.data());
    BackwardSweep sweep(p, plan, team, cursor);
    jaxlstm::fill(sweep.schedule_, p.sizes, p.valid, plan);
    expect_filled(p.g_x, p.sizes.T * p.sizes.B * p.sizes.D * sizeof(float));
    team.run([](void* self, int me) { static_cast<BackwardSweep*>(self)->work(me); }, &sweep);
  }

 private:
  BackwardSweep(const Backward& p, const Plan& plan, Team& team, Cursor& cursor)
      : p_(p),
        s_(p.sizes),
        plan_(plan),
        team_(team),
        units_(blocks_of(s_.H)),
        schedule_(s_, plan, cursor),
        products_(s_, plan.steps * s_.B, cursor),
        again_(s_, p.extra != nullptr, p.b == nullptr ? 0 : plan.steps * s_.B, cursor),
        gates_(cursor.take((p.b == nullptr ? 0 : plan.steps * s_.B) * 4 * units_ * W)),
        cotangents_(p, plan, schedule_, products_, gates_, cursor) {}

  void work(int me) {
    int first_share = me, end_share = me + 1;
    auto each_share = [&](const auto& f) {
      for (int i = first_share; i < end_share; ++i) f(cotangents_.share_of(i));
    };
    auto together = [&] {  // or the first thread alone, for all
      team_.barrier();
      if (!team_.alone()) return true;
      first_share = 0;
      end_share = plan_.threads;
      return me == 0;
    };
    begin(cotangents_.share_of(me));
    if (!together()) return;
    for (int64_t end = s_.T; end > 0;) {
      const int64_t first = (end - 1) / plan_.steps * plan_.steps;
      const Range block = positions(first, end);
      each_share([&](const Share& s) { gates_again(s, first, end); });
      for (int64_t t = end - 1; t >= first; --t) {
        each_share([&](const Share& s) { cotangents_.step(s, t, block.begin); });
        if (!plan_.by_rows && !together()) return;
      }
      each_share([&](const Share& s) { transpose(s, block); });
      if (!together()) return;
      each_share([&](const Share& s) { multiply(s, block); });
      if (!together()) return;
      end = first;
    }
    each_share([&](const Share& s) {
      products_.write(units_of(s), p_.g_w_x, p_.g_w_h, p_.g_b, p_.g_extra);
      cotangents_.finish(s);
    });
  }

  Range units_of(const Share& s) const { return share(units_, plan_.threads, s.index); }

  // The positions in the schedule of a block of time; the first has row 0 of g_z.
  Range positions(int64_t first, int64_t end) const {
    return {schedule_.span(first, 0).begin, schedule_.span(end - 1, plan_.parts - 1).end};
  }

  void begin(const Share& s) {
    products_.begin(p_.w_x, plan_.threads, s.index);
    if (p_.b != nullptr) again_.fill({p_.w_x, p_.w_h, p_.b, p_.extra}, units_of(s));
    cotangents_.begin(s);
  }

  void gates_again(const Share& s, int64_t first, int64_t end) {
    if (p_.b == nullptr) return;
    const int64_t from = schedule_.span(first, s.part).begin;
    const int64_t rows = schedule_.span(end - 1, s.part).end - from;
    const int64_t at = from - positions(first, end).begin;
    const int32_t* entries = schedule_.entries + from;
    again_.project(p_.x, entries, rows, at, s.units);
    for (int64_t b = s.units.begin; b < s.units.end; ++b) {
      for_tiles<Gates<Cell>::MOST>(rows, [&](int64_t i, auto count) {
        again_tile<decltype(count)::value>(entries + i, b, at + i);
      });
    }
  }

  template <int R>
  __attribute__((noinline)) void again_tile(const int32_t* entries, int64_t block, int64_t at) {
    const float *c[R], *h[R];
    for (int r = 0; r < R; ++r) {
      c[r] = Cell::CELL ? before(p_.c0, p_.cs, entries[r], s_) : nullptr;
      h[r] = before(p_.h0, p_.hs, entries[r], s_);
    }
    auto sink = [&](int r, State, const V(&kept)[4]) __attribute__((always_inline)) {
      float* row = gates_ + (at + r) * 4 * units_ * W + block * W;
      JAXLSTM_UNROLL for (int g = 0; g < 4; ++g) store(row + g * units_ * W, kept[g]);
    };
    again_.template step<R>(block, c, h, again_.z_row(block, at), sink);
  }

  void transpose(const Share& s, Range block) const {
    const int32_t* entries = schedule_.entries + block.begin;
    const int64_t rows = block.end - block.begin;
    products_.transpose([&](int64_t e) { return p_.x + entries[e] * s_.D; }, rows, s_.D,
                        plan_.threads, s.index, products_.x_again);
    products_.transpose([&](int64_t e) { return before(p_.h0, p_.hs, entries[e], s_); }, rows,
                        s_.H, plan_.threads, s.index, products_.h_again);
  }

  void multiply(const Share& s, Range block) const {
    const int64_t rows = block.end - block.begin;
    cotangents_.flush(s);
    products_.add(rows, units_of(s));
    products_.to_x(schedule_.entries + block.begin, share(rows, plan_.threads, s.index), p_.g_x);
  }

  const Backward& p_;
  const Sizes s_;
  const Plan plan_;
  Team& team_;
  const int64_t units_;
  Timetable schedule_;
  Gradients<Cell> products_;
  Gates<Cell> again_;
  float* gates_;
  Cotangents<Cell> cotangents_;
};

}  // namespace jaxlstm::JAXLSTM_ISA
