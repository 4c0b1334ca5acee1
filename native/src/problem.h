// What a sweep reads and writes: row-major arrays, float32, null for those that are absent.
#pragma once

#include <cstdint>

namespace jaxlstm {

struct Sizes {
  int64_t T, B, D, H;  // steps, sequences, features of the input, hidden units
};

// G gates: i, f, g, o of an LSTM, or r, z, n of a GRU.
struct Forward {
  Sizes sizes;
  const float* x;      // (T, B, D)
  const float* w_x;    // (D, G, H)
  const float* w_h;    // (H, G, H)
  const float* b;      // (G, H)
  const float* extra;  // LSTM: peepholes (3, H) or null; GRU: b_n (H)
  const float* c0;     // (B, H), LSTM alone
  const float* h0;     // (B, H)
  const bool* valid;   // (T, B) or null; false leaves the carry as it was
  float* cs;           // (T, B, H) or null, LSTM alone
  float* c_last;       // (B, H), LSTM alone, where cs is null
  float* hs;           // (T, B, H)
  float* gates;        // (T, B, 4, H) or null: activations; a GRU's fourth is h U_n + b_n
};

struct Backward {
  Sizes sizes;
  const float *x, *w_x, *w_h;
  const float* b;  // null with gates; without, they are computed again from x, hs and cs
  const float *extra, *c0, *h0;
  const bool* valid;
  const float *cs, *hs;
  const float* gates;                // (T, B, 4, H)
  const float* g_hs;                 // (T, B, H)
  const float* g_cs;                 // (T, B, H) or null
  const float *g_c_last, *g_h_last;  // (B, H)
  float *g_x, *g_w_x, *g_w_h, *g_b, *g_extra, *g_c0, *g_h0;
};

}  // namespace jaxlstm
