// The recurrences and their gradients in plain loops, in double precision.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace reference {

using Array = std::vector<double>;

struct Problem {
  int64_t T, B, D, H, G;  // G: 4 for an LSTM, 3 for a GRU
  bool has_extra, has_valid;
  Array x, w_x, w_h, b, extra, c0, h0;         // extra: peepholes, or b_n
  std::vector<char> valid;                     // (T, B)
  Array g_hs, g_cs, g_c_last, g_h_last;        // cotangents
};

struct Result {
  Array hs, cs, gates;  // (T, B, H), the same, and (T, B, 4, H)
  Array g_x, g_w_x, g_w_h, g_b, g_extra, g_c0, g_h0;
};

inline double sigmoid(double v) { return 1 / (1 + std::exp(-v)); }

inline void forward(const Problem& p, Result& out) {
  const int64_t H = p.H, G = p.G;
  out.hs.assign(p.T * p.B * H, 0);
  out.cs.assign(p.T * p.B * H, 0);
  out.gates.assign(p.T * p.B * 4 * H, 0);
  for (int64_t t = 0; t < p.T; ++t) {
    for (int64_t n = 0; n < p.B; ++n) {
      const int64_t at = t * p.B + n;
      const double* h = t ? &out.hs[(at - p.B) * H] : &p.h0[n * H];
      const double* c = t ? &out.cs[(at - p.B) * H] : &p.c0[n * H];
      for (int64_t j = 0; j < H; ++j) {
        double *to_h = &out.hs[at * H + j], *to_c = &out.cs[at * H + j];
        *to_h = h[j];
        *to_c = c[j];
        if (p.has_valid && !p.valid[at]) continue;
        double z[4] = {}, u[4] = {}, a[4] = {};
        for (int64_t g = 0; g < G; ++g) {
          z[g] = p.b[g * H + j];
          for (int64_t k = 0; k < p.D; ++k) z[g] += p.x[at * p.D + k] * p.w_x[(k * G + g) * H + j];
          for (int64_t k = 0; k < H; ++k) u[g] += h[k] * p.w_h[(k * G + g) * H + j];
        }
        if (G == 4) {
          const double* e = p.has_extra ? p.extra.data() : nullptr;
          a[0] = sigmoid(z[0] + u[0] + (e ? e[j] * c[j] : 0));
          a[1] = sigmoid(z[1] + u[1] + (e ? e[H + j] * c[j] : 0));
          a[2] = std::tanh(z[2] + u[2]);
          *to_c = a[1] * c[j] + a[0] * a[2];
          a[3] = sigmoid(z[3] + u[3] + (e ? e[2 * H + j] * *to_c : 0));
          *to_h = a[3] * std::tanh(*to_c);
        } else {
          a[0] = sigmoid(z[0] + u[0]);
          a[1] = sigmoid(z[1] + u[1]);
          a[3] = u[2] + p.extra[j];
          a[2] = std::tanh(z[2] + a[0] * a[3]);
          *to_h = (1 - a[1]) * a[2] + a[1] * h[j];
        }
        for (int g = 0; g < 4; ++g) out.gates[(at * 4 + g) * H + j] = a[g];
      }
    }
  }
}

// One step and one sequence of the backward sweep: g_h and g_c become those of the state before.
inline void backward_step(const Problem& p, Result& out, int64_t at, const double* h,
                          const double* c, Array& g_h, Array& g_c) {
  const int64_t H = p.H, G = p.G;
  Array to_h(H, 0), g_z(G * H), g_u(G * H);
  for (int64_t j = 0; j < H; ++j) {
    double a[4];
    for (int g = 0; g < 4; ++g) a[g] = out.gates[(at * 4 + g) * H + j];
    auto slope = [](double s) { return s * (1 - s); };
    if (G == 4) {
      const double c_now = out.cs[at * H + j], shown = std::tanh(c_now);
      const double g_o = g_h[j] * shown * slope(a[3]);
      double g = g_c[j] + g_h[j] * a[3] * (1 - shown * shown);
      if (p.has_extra) g += g_o * p.extra[2 * H + j];
      const double g_i = g * a[2] * slope(a[0]), g_f = g * c[j] * slope(a[1]);
      g_z[j] = g_i;
      g_z[H + j] = g_f;
      g_z[2 * H + j] = g * a[0] * (1 - a[2] * a[2]);
      g_z[3 * H + j] = g_o;
      g_c[j] = g * a[1];
      if (p.has_extra) {
        g_c[j] += g_i * p.extra[j] + g_f * p.extra[H + j];
        out.g_extra[j] += g_i * c[j];
        out.g_extra[H + j] += g_f * c[j];
        out.g_extra[2 * H + j] += g_o * c_now;
      }
      for (int g4 = 0; g4 < 4; ++g4) g_u[g4 * H + j] = g_z[g4 * H + j];
    } else {
      const double g_n = g_h[j] * (1 - a[1]) * (1 - a[2] * a[2]);
      g_u[j] = g_z[j] = g_n * a[3] * slope(a[0]);
      g_u[H + j] = g_z[H + j] = g_h[j] * (h[j] - a[2]) * slope(a[1]);
      g_z[2 * H + j] = g_n;
      g_u[2 * H + j] = g_n * a[0];
      out.g_extra[j] += g_n * a[0];
      to_h[j] = g_h[j] * a[1];
    }
  }
  for (int64_t m = 0; m < G * H; ++m) {
    out.g_b[m] += g_z[m];
    for (int64_t k = 0; k < p.D; ++k) {
      out.g_x[at * p.D + k] += g_z[m] * p.w_x[k * G * H + m];
      out.g_w_x[k * G * H + m] += g_z[m] * p.x[at * p.D + k];
    }
    for (int64_t k = 0; k < H; ++k) {
      to_h[k] += g_u[m] * p.w_h[k * G * H + m];
      out.g_w_h[k * G * H + m] += g_u[m] * h[k];
    }
  }
  g_h = to_h;
}

inline void backward(const Problem& p, Result& out) {
  const int64_t H = p.H;
  out.g_x.assign(p.T * p.B * p.D, 0);
  out.g_w_x.assign(p.D * p.G * H, 0);
  out.g_w_h.assign(H * p.G * H, 0);
  out.g_b.assign(p.G * H, 0);
  out.g_extra.assign(p.G == 3 ? H : p.has_extra ? 3 * H : 0, 0);
  out.g_c0.assign(p.B * H, 0);
  out.g_h0.assign(p.B * H, 0);
  for (int64_t n = 0; n < p.B; ++n) {
    Array g_h(p.g_h_last.begin() + n * H, p.g_h_last.begin() + (n + 1) * H);
    Array g_c(p.g_c_last.begin() + n * H, p.g_c_last.begin() + (n + 1) * H);
    for (int64_t t = p.T - 1; t >= 0; --t) {
      const int64_t at = t * p.B + n;
      for (int64_t j = 0; j < H; ++j) {
        g_h[j] += p.g_hs[at * H + j];
        if (!p.g_cs.empty()) g_c[j] += p.g_cs[at * H + j];
      }
      if (p.has_valid && !p.valid[at]) continue;
      const double* h = t ? &out.hs[(at - p.B) * H] : &p.h0[n * H];
      const double* c = t ? &out.cs[(at - p.B) * H] : &p.c0[n * H];
      backward_step(p, out, at, h, c, g_h, g_c);
    }
    for (int64_t j = 0; j < H; ++j) {
      out.g_h0[n * H + j] = g_h[j];
      out.g_c0[n * H + j] = g_c[j];
    }
  }
}

}  // namespace reference
