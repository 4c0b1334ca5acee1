#include "schedule.h"

#include <unistd.h>

#include <algorithm>
#include <numeric>
#include <vector>

namespace jaxlstm {
namespace {

constexpr int64_t kRows = 4;  // sequences a thread, at least: a smaller tile is slow

double cache_bytes() {
  if (tuning.cache > 0) return tuning.cache;
#if defined(_SC_LEVEL2_CACHE_SIZE)
  static const long found = sysconf(_SC_LEVEL2_CACHE_SIZE);
  if (found > 0) return static_cast<double>(found);
#endif
  return 1 << 20;
}

double work(const Sizes& s) {
  return static_cast<double>(s.T) * s.B * s.H * (s.D + s.H);
}

// Longest first, dealt out to and fro, so that all parts have about as many valid steps.
void deal(const Schedule& schedule, const Sizes& s, const bool* valid, int parts) {
  std::vector<int32_t> order(s.B), counts(s.B, 0);
  std::iota(order.begin(), order.end(), 0);
  if (valid != nullptr) {
    for (int64_t i = 0; i < s.T * s.B; ++i) counts[i % s.B] += valid[i];
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return counts[a] > counts[b]; });
  }
  int32_t* row = schedule.rows;
  for (int part = 0; part < parts; ++part) {
    schedule.firsts[part] = static_cast<int32_t>(row - schedule.rows);
    for (int64_t i = 0; i < s.B; ++i) {
      int64_t round = i / parts, seat = i % parts;
      if ((round % 2 == 0 ? seat : parts - 1 - seat) == part) *row++ = order[i];
    }
    std::sort(schedule.rows + schedule.firsts[part], row);
  }
  schedule.firsts[parts] = static_cast<int32_t>(s.B);
}

}  // namespace

Tuning tuning;

bool is_small(const Sizes& sizes) { return work(sizes) < tuning.to_start; }

Plan make_plan(Sweep sweep, const Sizes& s, int gates, int width, int available) {
  Plan plan;
  if (!is_small(s) && available > 1) {
    double most = std::min<double>(available, 1 + work(s) / tuning.to_start);
    double weights = 4.0 * gates * s.H * (s.D + s.H);
    if (s.B >= 2 * kRows && weights < 0.6 * cache_bytes()) {
      plan.by_rows = true;
      plan.threads = static_cast<int>(std::min<double>(most, s.B / kRows));
    } else {
      double step = static_cast<double>(s.B) * s.H * s.H * gates;
      double units = (s.H + width - 1) / width;
      double waits = std::max(1.0, step / tuning.to_wait);
      plan.threads = static_cast<int>(std::min({most, units, waits}));
    }
  }
  if (plan.threads < 2) plan = Plan{};
  if (plan.by_rows) plan.parts = plan.threads;
  int64_t rows = tuning.rows[sweep];
  if (plan.by_rows) rows = rows * plan.threads / 2;
  plan.steps = std::clamp<int64_t>(rows / std::max<int64_t>(s.B, 1), 1,
                                   std::max<int64_t>(s.T, 1));
  return plan;
}

void fill(const Schedule& schedule, const Sizes& s, const bool* valid, const Plan& plan) {
  const int parts = plan.parts;
  deal(schedule, s, valid, parts);
  int32_t at = 0;
  for (int64_t first = 0; first < s.T; first += plan.steps) {
    const int64_t end = std::min(s.T, first + plan.steps);
    for (int part = 0; part < parts; ++part) {
      const int32_t* rows = schedule.rows;
      for (int64_t t = first; t < end; ++t) {
        Span& span = schedule.spans[t * parts + part];
        span.begin = at;
        for (int32_t i = schedule.firsts[part]; i < schedule.firsts[part + 1]; ++i) {
          int64_t entry = t * s.B + rows[i];
          if (valid != nullptr && !valid[entry]) continue;
          schedule.entries[at++] = static_cast<int32_t>(entry);
        }
        span.end = at;
      }
    }
  }
}

}  // namespace jaxlstm
