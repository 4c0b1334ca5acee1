// The elementwise part of an LSTM, forward and transposed.
#pragma once

#include "vector.h"

namespace jaxlstm::JAXLSTM_ISA {

struct State {
  V c, h;
};

struct LSTM {
  static constexpr int G = 4;       // gates: i, f, g, o
  static constexpr int EXTRAS = 3;  // peepholes of i, f, o
  static constexpr bool CELL = true;
  static constexpr int OF_X[G] = {0, 1, 2, 3};  // the order of gates in the rows of g_z
  static constexpr int OF_H[G] = {0, 1, 2, 3};
  static constexpr int FROM_X = 0, FROM_H = 0;  // the first of these in a row of four
  static constexpr int H_BIAS = -1;             // the gate whose bias is inside h U: none

  // Where the sum that h U is added to begins, of z = x W + b.
  static JAXLSTM_INLINE V start(int gate, const float* z, const float*) {
    return load(z + gate * W);
  }

  // a = z + h U; p the peepholes, null for none.
  static JAXLSTM_INLINE State step(const V (&a)[G], const float*, const float* p, State before,
                                   V (&kept)[4]) {
    V i = a[0], f = a[1], o = a[3];
    if (p != nullptr) {
      i += load(p) * before.c;
      f += load(p + W) * before.c;
    }
    kept[0] = sigmoid(i);
    kept[1] = sigmoid(f);
    kept[2] = tanh(a[2]);
    V c = kept[1] * before.c + kept[0] * kept[2];
    if (p != nullptr) o += load(p + 2 * W) * c;
    kept[3] = sigmoid(o);
    return {c, kept[3] * tanh(c)};
  }

  // From the cotangents g of the state after, those of the state before, but for what comes
  // through h U, and g_z in order. Adds to the peepholes' cotangents in `sums`.
  static JAXLSTM_INLINE State back(const V (&gates)[4], State before, State after, const float* p,
                                   State g, V (&g_z)[4], float* sums) {
    V i = gates[0], f = gates[1], n = gates[2], o = gates[3], shown = tanh(after.c);
    V g_o = g.h * shown * (o * (1.0f - o));
    V g_c = g.c + g.h * o * (1.0f - shown * shown);
    if (p != nullptr) g_c += load(p + 2 * W) * g_o;
    V g_i = g_c * n * (i * (1.0f - i));
    V g_f = g_c * before.c * (f * (1.0f - f));
    g_z[0] = g_i;
    g_z[1] = g_f;
    g_z[2] = g_c * i * (1.0f - n * n);
    g_z[3] = g_o;
    V g_before = g_c * f;
    if (p != nullptr) {
      g_before += load(p) * g_i + load(p + W) * g_f;
      store(sums, load(sums) + g_i * before.c);
      store(sums + W, load(sums + W) + g_f * before.c);
      store(sums + 2 * W, load(sums + 2 * W) + g_o * after.c);
    }
    return {g_before, V{}};
  }
};

}  // namespace jaxlstm::JAXLSTM_ISA
