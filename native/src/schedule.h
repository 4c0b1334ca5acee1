// How a call is split: over threads, into blocks of time, and into the steps that are valid.
#pragma once

#include "problem.h"

namespace jaxlstm {

// Threads take sequences each where the weights fit a core's cache, and hidden units each
// otherwise: then all wait for each other after every step.
struct Plan {
  int threads = 1;
  bool by_rows = false;
  int parts = 1;      // that the sequences are split into: as many as threads, or one
  int64_t steps = 1;  // to a block of time
};

// Where one plan becomes better than another. The tests set it, to have all of them in small.
struct Tuning {
  double to_start = 2e5;   // work below which another thread costs more to start than it brings
  double to_wait = 2.5e4;  // the same of one step, after which threads wait for each other
  double cache = 0;        // bytes of a core's second cache; 0: what the system says
  // Of (time, sequence) in a block, forward and backward: the more, the less often weights are
  // read; too many are not in cache when they are read again.
  int64_t rows[2] = {192, 256};
};
extern Tuning tuning;

enum Sweep { FORWARD, BACKWARD };

Plan make_plan(Sweep sweep, const Sizes& sizes, int gates, int width, int available);

// Whether a call is too small to be worth a second thread.
bool is_small(const Sizes& sizes);

struct Span {
  int32_t begin, end;
};

// The valid pairs of step and sequence, as t * B + row, in the order of (block, part, step).
struct Schedule {
  int32_t* entries;  // (T * B)
  Span* spans;       // (T, parts), each of entries
  int32_t* rows;     // (B) the sequences, part after part
  int32_t* firsts;   // (parts + 1) where a part's rows begin
};

void fill(const Schedule& schedule, const Sizes& sizes, const bool* valid, const Plan& plan);

}  // namespace jaxlstm
