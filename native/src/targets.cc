// The FFI targets; jaxlstm_native/__init__.py has their arguments and results.
#include <limits>
#include <new>

#include "arguments.h"
#include "kernels.h"
#include "xla/ffi/api/ffi.h"

namespace jaxlstm {
namespace {

namespace ffi = xla::ffi;
using Args = ffi::RemainingArgs;
using Rets = ffi::RemainingRets;

struct Shapes {
  int64_t T, B, D, H, G;

  // x is the first argument, w_h the third.
  Shapes(Arguments& a, int64_t gates)
      : T(a.axis(0, 0)), B(a.axis(0, 1)), D(a.axis(0, 2)), H(a.axis(2, 0)), G(gates) {}
  Sizes sizes() const { return {T, B, D, H}; }
};

template <class Problem>
ffi::Error run(Arguments& arguments, const Problem& problem,
               void (*Kernels::*sweep)(const Problem&)) {
  if (ffi::Error error = arguments.error(); error.failure()) return error;
  const Sizes& s = problem.sizes;
  if (s.T > 0 && s.B > std::numeric_limits<int32_t>::max() / s.T) {
    return ffi::Error::InvalidArgument("x: more than 2^31 steps in all");
  }
  (kernels().*sweep)(problem);
  return ffi::Error::Success();
}

// No exception may cross into XLA.
template <class F>
ffi::Error guarded(const F& f) noexcept {
  try {
    return f();
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "no memory for the native kernels");
  } catch (const std::exception& error) {
    return ffi::Error::Internal(error.what());
  }
}

Forward inputs(Arguments& a, const Shapes& s) {
  Forward p{};
  p.sizes = s.sizes();
  p.x = a.floats("x", {s.T, s.B, s.D});
  p.w_x = a.floats("w_x", {s.D, s.G, s.H});
  p.w_h = a.floats("w_h", {s.H, s.G, s.H});
  p.b = a.floats("b", {s.G, s.H});
  return p;
}

ffi::Error lstm_forward(Args args, Rets rets, bool keep) {
  return guarded([&] {
    Arguments a(args, rets);
    const Shapes s(a, 4);
    Forward p = inputs(a, s);
    p.extra = a.floats_or_none("peephole", {3, s.H});
    p.c0 = a.floats("c0", {s.B, s.H});
    p.h0 = a.floats("h0", {s.B, s.H});
    p.valid = a.flags_or_none("valid", {s.T, s.B});
    if (keep) {
      p.cs = a.result("cs", {s.T, s.B, s.H});
    } else {
      p.c_last = a.result("c_last", {s.B, s.H});
    }
    p.hs = a.result("hs", {s.T, s.B, s.H});
    if (keep) p.gates = a.result_or_none("gates", {s.T, s.B, 4, s.H});
    return run(a, p, &Kernels::lstm_forward);
  });
}

ffi::Error gru_forward(Args args, Rets rets, bool keep) {
  return guarded([&] {
    Arguments a(args, rets);
    const Shapes s(a, 3);
    Forward p = inputs(a, s);
    p.extra = a.floats("b_n", {s.H});
    p.h0 = a.floats("h0", {s.B, s.H});
    p.valid = a.flags_or_none("valid", {s.T, s.B});
    p.hs = a.result("hs", {s.T, s.B, s.H});
    if (keep) p.gates = a.result_or_none("gates", {s.T, s.B, 4, s.H});
    return run(a, p, &Kernels::gru_forward);
  });
}

void results(Arguments& a, const Shapes& s, Backward& p) {
  p.g_x = a.result("g_x", {s.T, s.B, s.D});
  p.g_w_x = a.result("g_w_x", {s.D, s.G, s.H});
  p.g_w_h = a.result("g_w_h", {s.H, s.G, s.H});
  p.g_b = a.result("g_b", {s.G, s.H});
}

ffi::Error lstm_backward(Args args, Rets rets, bool lean) {
  return guarded([&] {
    Arguments a(args, rets);
    const Shapes s(a, 4);
    Backward p{};
    p.sizes = s.sizes();
    p.x = a.floats("x", {s.T, s.B, s.D});
    p.w_x = a.floats("w_x", {s.D, s.G, s.H});
    p.w_h = a.floats("w_h", {s.H, s.G, s.H});
    if (lean) p.b = a.floats("b", {s.G, s.H});
    p.extra = a.floats_or_none("peephole", {3, s.H});
    p.c0 = a.floats("c0", {s.B, s.H});
    p.h0 = a.floats("h0", {s.B, s.H});
    p.valid = a.flags_or_none("valid", {s.T, s.B});
    p.cs = a.floats("cs", {s.T, s.B, s.H});
    p.hs = a.floats("hs", {s.T, s.B, s.H});
    if (!lean) p.gates = a.floats("gates", {s.T, s.B, 4, s.H});
    p.g_hs = a.floats("g_hs", {s.T, s.B, s.H});
    p.g_cs = a.floats_or_none("g_cs", {s.T, s.B, s.H});
    p.g_c_last = a.floats("g_c_last", {s.B, s.H});
    p.g_h_last = a.floats("g_h_last", {s.B, s.H});
    results(a, s, p);
    p.g_extra = a.result("g_peephole", {p.extra == nullptr ? 0 : 3, s.H});
    p.g_c0 = a.result("g_c0", {s.B, s.H});
    p.g_h0 = a.result("g_h0", {s.B, s.H});
    return run(a, p, &Kernels::lstm_backward);
  });
}

ffi::Error gru_backward(Args args, Rets rets, bool lean) {
  return guarded([&] {
    Arguments a(args, rets);
    const Shapes s(a, 3);
    Backward p{};
    p.sizes = s.sizes();
    p.x = a.floats("x", {s.T, s.B, s.D});
    p.w_x = a.floats("w_x", {s.D, s.G, s.H});
    p.w_h = a.floats("w_h", {s.H, s.G, s.H});
    if (lean) p.b = a.floats("b", {s.G, s.H});
    if (lean) p.extra = a.floats("b_n", {s.H});
    p.h0 = a.floats("h0", {s.B, s.H});
    p.valid = a.flags_or_none("valid", {s.T, s.B});
    p.hs = a.floats("hs", {s.T, s.B, s.H});
    if (!lean) p.gates = a.floats("gates", {s.T, s.B, 4, s.H});
    p.g_hs = a.floats("g_hs", {s.T, s.B, s.H});
    p.g_h_last = a.floats("g_h_last", {s.B, s.H});
    results(a, s, p);
    p.g_extra = a.result("g_b_n", {s.H});
    p.g_h0 = a.result("g_h0", {s.B, s.H});
    return run(a, p, &Kernels::gru_backward);
  });
}

}  // namespace
}  // namespace jaxlstm

#pragma GCC visibility push(default)

#define JAXLSTM_TARGET(name, call)                                                  \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(                                                    \
      name, [](xla::ffi::RemainingArgs args, xla::ffi::RemainingRets rets) { return call; }, \
      xla::ffi::Ffi::Bind().RemainingArgs().RemainingRets())

JAXLSTM_TARGET(jaxlstm_lstm_forward, jaxlstm::lstm_forward(args, rets, false));
JAXLSTM_TARGET(jaxlstm_lstm_forward_keep, jaxlstm::lstm_forward(args, rets, true));
JAXLSTM_TARGET(jaxlstm_lstm_backward, jaxlstm::lstm_backward(args, rets, false));
JAXLSTM_TARGET(jaxlstm_lstm_backward_lean, jaxlstm::lstm_backward(args, rets, true));
JAXLSTM_TARGET(jaxlstm_gru_forward, jaxlstm::gru_forward(args, rets, false));
JAXLSTM_TARGET(jaxlstm_gru_forward_keep, jaxlstm::gru_forward(args, rets, true));
JAXLSTM_TARGET(jaxlstm_gru_backward, jaxlstm::gru_backward(args, rets, false));
JAXLSTM_TARGET(jaxlstm_gru_backward_lean, jaxlstm::gru_backward(args, rets, true));

extern "C" const char* jaxlstm_instruction_set() { return jaxlstm::kernels().name; }
extern "C" int jaxlstm_use(const char* name) { return jaxlstm::use(name); }

#pragma GCC visibility pop
