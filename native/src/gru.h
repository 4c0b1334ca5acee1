// The elementwise part of a GRU whose reset comes after the product, forward and transposed.
#pragma once

#include "lstm.h"

namespace jaxlstm::JAXLSTM_ISA {

struct GRU {
  static constexpr int G = 3;       // gates: r, z, n
  static constexpr int EXTRAS = 1;  // b_n
  static constexpr bool CELL = false;
  static constexpr int OF_X[G] = {2, 0, 1};  // a row of g_z has n, r, z, and h U's n
  static constexpr int OF_H[G] = {0, 1, 2};
  static constexpr int FROM_X = 0, FROM_H = 1;
  static constexpr int H_BIAS = 2;

  static JAXLSTM_INLINE V start(int gate, const float* z, const float* b_n) {
    return gate == 2 ? load(b_n) : load(z + gate * W);
  }

  // a = z + h U of r and z; of n, h U + b_n.
  static JAXLSTM_INLINE State step(const V (&a)[G], const float* z, const float*, State before,
                                   V (&kept)[4]) {
    kept[0] = sigmoid(a[0]);
    kept[1] = sigmoid(a[1]);
    kept[2] = tanh(load(z + 2 * W) + kept[0] * a[2]);
    kept[3] = a[2];
    return {V{}, kept[2] + kept[1] * (before.h - kept[2])};
  }

  static JAXLSTM_INLINE State back(const V (&gates)[4], State before, State, const float*, State g,
                                   V (&g_z)[4], float*) {
    V r = gates[0], z = gates[1], n = gates[2];
    V g_n = g.h * (1.0f - z) * (1.0f - n * n);
    g_z[0] = g_n;
    g_z[1] = g_n * gates[3] * (r * (1.0f - r));
    g_z[2] = g.h * (before.h - n) * (z * (1.0f - z));
    g_z[3] = g_n * r;
    return {V{}, g.h * z};
  }
};

}  // namespace jaxlstm::JAXLSTM_ISA
