// Weights laid out as the products read them, a cell's units in vectors ("blocks") of W.
#pragma once

#include "memory.h"
#include "schedule.h"
#include "tile.h"

namespace jaxlstm::JAXLSTM_ISA {

JAXLSTM_INLINE int64_t blocks_of(int64_t n) { return (n + W - 1) / W; }

struct Range {
  int64_t begin, end;
};

// The i-th of n nearly equal shares; the first, which begins first, is never the smaller.
JAXLSTM_INLINE Range share(int64_t size, int64_t n, int64_t i) {
  return {(size * i + n - 1) / n, (size * (i + 1) + n - 1) / n};
}

// Hands out arrays: once without memory, to learn how much is needed, and once with it.
class Cursor {
 public:
  explicit Cursor(char* base) : base_(base) {}
  int64_t used() const { return used_; }

  template <class T = float>
  JAXLSTM_INLINE T* take(int64_t n) {
    T* array = reinterpret_cast<T*>(base_ + used_);
    int64_t end = used_ + n * static_cast<int64_t>(sizeof(T));
    used_ = (end + 127) / 64 * 64;  // at least one line to spare
    if (base_ != nullptr) forbid(base_ + (end + 7) / 8 * 8, used_ - (end + 7) / 8 * 8);
    return base_ == nullptr ? nullptr : array;
  }

 private:
  char* base_;
  int64_t used_ = 0;
};

struct Timetable : Schedule {
  int parts;

  Timetable(const Sizes& s, const Plan& plan, Cursor& cursor) : Schedule{}, parts(plan.parts) {
    entries = cursor.take<int32_t>(s.T * s.B);
    spans = cursor.take<Span>(s.T * parts);
    rows = cursor.take<int32_t>(s.B);
    firsts = cursor.take<int32_t>(parts + 1);
  }

  const Span& span(int64_t t, int part) const { return spans[t * parts + part]; }
};

// w (depth, G, H) as (blocks, depth, G, W), in the order of gates given; missing units are zero.
template <int G>
void pack(const float* w, int64_t depth, int64_t H, const int (&order)[G], Range blocks,
          float* out) {
  for (int64_t b = blocks.begin; b < blocks.end; ++b) {
    for (int64_t k = 0; k < depth; ++k) {
      float* to = out + (b * depth + k) * G * W;
      JAXLSTM_UNROLL for (int g = 0; g < G; ++g) {
        store(to + g * W, load(w + (k * G + order[g]) * H + b * W, H - b * W));
      }
    }
  }
}

// w (rows, G, H) transposed, for n blocks of rows from `first`: (blocks of H, G, W, n, W).
template <int G>
void pack_transposed(const float* w, int64_t rows, int64_t H, const int (&order)[G], int64_t first,
                     int n, float* out) {
  for (int64_t b = 0; b < blocks_of(H); ++b) {
    const int64_t lanes = H - b * W < W ? H - b * W : W;
    for (int g = 0; g < G; ++g) {
      float* to = out + (b * G + g) * W * n * W;
      for (int v = 0; v < n; ++v) {
        for (int u = 0; u < W; ++u) {
          const int64_t row = (first + v) * W + u;
          const float* from = w + (row * G + order[g]) * H + b * W;
          for (int l = 0; l < W; ++l) {
            to[(l * n + v) * W + u] = row < rows && l < lanes ? from[l] : 0.0f;
          }
        }
      }
    }
  }
}

}  // namespace jaxlstm::JAXLSTM_ISA
