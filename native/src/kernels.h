// The same kernels compiled for several instruction sets, and the choice among them.
#pragma once

#include "problem.h"

namespace jaxlstm {

// The sweeps throw std::bad_alloc, before they have written anything.
struct Kernels {
  const char* name;
  void (*lstm_forward)(const Forward&);
  void (*gru_forward)(const Forward&);
  void (*lstm_backward)(const Backward&);
  void (*gru_backward)(const Backward&);
  void (*activations)(const float* x, float* tanh, float* sigmoid, int64_t n);
};

// Null where the build or the processor has not the instruction set of that name.
const Kernels* kernels_for(const char* name) noexcept;

// The best that the processor has, unless `use` named another.
const Kernels& kernels() noexcept;
bool use(const char* name) noexcept;

}  // namespace jaxlstm
