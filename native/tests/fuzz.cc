// The kernels of every instruction set here, on random problems from several threads at once,
// beside loops in double precision.   fuzz [rounds] [seed]
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "../src/kernels.h"
#include "../src/schedule.h"
#include "../src/team.h"
#include "reference.h"

using reference::Array;
using Floats = std::vector<float>;

namespace {

constexpr double kTolerance = 2e-5;  // of the largest value: sums of some hundred float32 terms
std::atomic<int> checked{0}, failed{0};

struct Source {
  std::mt19937 engine;
  int64_t integer(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(engine);
  }
  bool coin(double p = 0.5) { return std::bernoulli_distribution(p)(engine); }
  // Rounded to float32, so that both sides have the same numbers.
  Array normal(int64_t n, double scale) {
    std::normal_distribution<double> of(0, scale);
    Array a(n);
    for (double& v : a) v = static_cast<float>(of(engine));
    return a;
  }
};

Floats floats(const Array& a) { return Floats(a.begin(), a.end()); }

void close(const char* what, const Floats& actual, const Array& expected,
           const std::string& where) {
  double scale = 1e-3, error = 0;
  for (size_t i = 0; i < expected.size(); ++i) scale = std::max(scale, std::abs(expected[i]));
  for (size_t i = 0; i < expected.size(); ++i) {
    const double apart = std::abs(actual[i] - expected[i]);
    error = apart <= error ? error : apart;  // a NaN stays
  }
  ++checked;
  if (actual.size() == expected.size() && error <= kTolerance * scale) return;
  ++failed;
  std::printf("%s: off by %g of %g in %s\n", what, error, scale, where.c_str());
}

reference::Problem draw(Source& s) {
  reference::Problem p;
  p.G = s.integer(3, 4);
  p.T = s.integer(0, 9);
  p.B = s.coin(0.3) ? 1 : s.integer(1, 20);
  p.D = s.integer(1, 40);
  p.H = s.integer(1, 70);
  p.has_extra = p.G == 3 || s.coin();
  p.has_valid = s.coin();
  p.x = s.normal(p.T * p.B * p.D, 1);
  p.w_x = s.normal(p.D * p.G * p.H, 1 / std::sqrt(p.D));
  p.w_h = s.normal(p.H * p.G * p.H, 1 / std::sqrt(p.H));
  p.b = s.normal(p.G * p.H, 0.5);
  p.extra = s.normal(p.G == 3 ? p.H : p.has_extra ? 3 * p.H : 0, 0.5);
  p.c0 = s.normal(p.B * p.H, 1);
  p.h0 = s.normal(p.B * p.H, 0.5);
  p.g_hs = s.normal(p.T * p.B * p.H, 1);
  p.g_cs = s.normal(p.G == 4 && s.coin() ? p.T * p.B * p.H : 0, 1);
  p.g_h_last = s.normal(p.B * p.H, 1);
  p.g_c_last = s.normal(p.B * p.H, 1);
  const double fill = s.coin() ? 0.3 : 0.9;
  const bool lengths = s.coin();
  p.valid.assign(p.T * p.B, 1);
  for (int64_t n = 0; n < p.B && p.has_valid; ++n) {
    const int64_t length = s.integer(0, p.T);
    for (int64_t t = 0; t < p.T; ++t) p.valid[t * p.B + n] = lengths ? t < length : s.coin(fill);
  }
  return p;
}

// The results start as NaN, so that what is left out shows; padding is NaN, and must not.
Floats blank(int64_t n) { return Floats(n, std::numeric_limits<float>::quiet_NaN()); }

void check(const jaxlstm::Kernels& kernels, Source& s) {
  const reference::Problem p = draw(s);
  reference::Result expected;
  reference::forward(p, expected);
  reference::backward(p, expected);
  const bool lstm = p.G == 4, keep = s.coin(), again = s.coin();
  const int64_t rows = p.T * p.B, all = rows * p.H;
  char where[200];
  std::snprintf(where, sizeof(where), "%s %s T=%d B=%d D=%d H=%d extra=%d valid=%d again=%d",
                kernels.name, lstm ? "lstm" : "gru", int(p.T), int(p.B), int(p.D), int(p.H),
                p.has_extra, p.has_valid, again);

  Floats x = floats(p.x), w_x = floats(p.w_x), w_h = floats(p.w_h), b = floats(p.b);
  Floats extra = floats(p.extra), c0 = floats(p.c0), h0 = floats(p.h0);
  std::unique_ptr<bool[]> valid(new bool[rows + 1]);
  for (int64_t i = 0; i < rows; ++i) {
    valid[i] = p.valid[i];
    for (int64_t k = 0; k < p.D && !valid[i]; ++k) x[i * p.D + k] = blank(1)[0];
  }
  const bool* flags = p.has_valid ? valid.get() : nullptr;
  const float* extras = p.has_extra ? extra.data() : nullptr;
  const jaxlstm::Sizes sizes{p.T, p.B, p.D, p.H};
  auto run = [&](float* cs, float* c_last, float* hs, float* gates) {
    const jaxlstm::Forward problem{sizes,     x.data(),  w_x.data(), w_h.data(), b.data(),
                                   extras,    c0.data(), h0.data(),  flags,      cs,
                                   c_last,    hs,        gates};
    (lstm ? kernels.lstm_forward : kernels.gru_forward)(problem);
  };

  Floats hs = blank(all), cs = blank(all), c_last = blank(p.B * p.H), gates = blank(4 * all);
  if (keep) {
    run(nullptr, lstm ? c_last.data() : nullptr, hs.data(), nullptr);
    close("hs alone", hs, expected.hs, where);
    Array last = p.T ? Array(expected.cs.end() - p.B * p.H, expected.cs.end()) : p.c0;
    if (lstm) close("c_last", c_last, last, where);
  }
  run(lstm ? cs.data() : nullptr, nullptr, hs.data(), again ? nullptr : gates.data());
  close("hs", hs, expected.hs, where);
  if (lstm) close("cs", cs, expected.cs, where);
  if (!again) close("gates", gates, expected.gates, where);

  Floats g_hs = floats(p.g_hs), g_cs = floats(p.g_cs);
  Floats g_c_last = floats(p.g_c_last), g_h_last = floats(p.g_h_last);
  Floats g_x = blank(rows * p.D), g_w_x = blank(w_x.size()), g_w_h = blank(w_h.size());
  Floats g_b = blank(b.size()), g_extra = blank(extra.size());
  Floats g_c0 = blank(p.B * p.H), g_h0 = blank(p.B * p.H);
  const jaxlstm::Backward problem{
      sizes,           x.data(),     w_x.data(),
      w_h.data(),      again ? b.data() : nullptr,
      extras,          c0.data(),    h0.data(),
      flags,           cs.data(),    hs.data(),
      again ? nullptr : gates.data(), g_hs.data(),
      g_cs.empty() ? nullptr : g_cs.data(),
      g_c_last.data(), g_h_last.data(),
      g_x.data(),      g_w_x.data(), g_w_h.data(),
      g_b.data(),      g_extra.data(), g_c0.data(),
      g_h0.data()};
  (lstm ? kernels.lstm_backward : kernels.gru_backward)(problem);
  close("g_x", g_x, expected.g_x, where);
  close("g_w_x", g_w_x, expected.g_w_x, where);
  close("g_w_h", g_w_h, expected.g_w_h, where);
  close("g_b", g_b, expected.g_b, where);
  close("g_extra", g_extra, expected.g_extra, where);
  close("g_h0", g_h0, expected.g_h0, where);
  if (lstm) close("g_c0", g_c0, expected.g_c0, where);
}

void check_activations(const jaxlstm::Kernels& kernels) {
  const float inf = std::numeric_limits<float>::infinity();
  Floats x = {0, -0.0f, 1e-30f, 1e38f, -1e38f, inf, -inf, std::nanf("")};
  for (int i = -100000; i <= 100000; ++i) x.push_back(static_cast<float>(i * 2e-4));
  Floats of_tanh(x.size()), of_sigmoid(x.size());
  kernels.activations(x.data(), of_tanh.data(), of_sigmoid.data(), x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const double t = std::tanh(double(x[i])), s = reference::sigmoid(x[i]);
    const bool fine = std::isnan(x[i])
                          ? std::isnan(of_tanh[i]) && std::isnan(of_sigmoid[i])
                          : std::abs(of_tanh[i] - t) <= 5e-7 * std::abs(t) &&
                                std::abs(of_sigmoid[i] - s) <= 3e-7 && std::abs(of_tanh[i]) <= 1;
    ++checked;
    if (fine) continue;
    ++failed;
    std::printf("%s: tanh and sigmoid of %g are %g, %g\n", kernels.name, x[i], of_tanh[i],
                of_sigmoid[i]);
  }
}

// A forked child has none of its parent's threads, and must not wait for them.
void check_fork(const jaxlstm::Kernels& kernels) {
#if !defined(__SANITIZE_THREAD__)  // which ends a child that starts threads
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    Source s{std::mt19937(1)};
    for (int i = 0; i < 5; ++i) check(kernels, s);
    _exit(failed > 0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ++checked;
  if (status == 0) return;
  ++failed;
  std::printf("%s: a forked child ended with %d\n", kernels.name, status);
#endif
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 100;
  const unsigned seed = argc > 2 ? std::atoi(argv[2]) : 0;
  for (const char* name : {"avx512", "avx2", "portable"}) {
    const jaxlstm::Kernels* kernels = jaxlstm::kernels_for(name);
    if (kernels == nullptr) {
      std::printf("%s: not on this processor\n", name);
      continue;
    }
    check_activations(*kernels);
    Source s{std::mt19937(seed)};
    for (int round = 0; round < rounds; ++round) {
      const bool small = s.coin(0.8);  // so small that every problem is split, in both ways
      jaxlstm::tuning = jaxlstm::Tuning{};
      if (small) jaxlstm::tuning.to_start = jaxlstm::tuning.to_wait = 1;
      if (small) jaxlstm::tuning.cache = s.coin() ? 1 : 1e9;
      for (int64_t& of : jaxlstm::tuning.rows) of = s.integer(1, 60);
      jaxlstm::limit_threads(static_cast<int>(s.integer(1, 4)));
      jaxlstm::crowd_at(s.coin(0.3) ? static_cast<int>(s.integer(1, 12)) : 0);
      std::vector<std::thread> callers;
      for (int64_t i = s.integer(1, 3); i > 0; --i) {
        callers.emplace_back([kernels, draws = static_cast<unsigned>(s.engine())] {
          Source own{std::mt19937(draws)};
          for (int i = 0; i < 3; ++i) check(*kernels, own);
        });
      }
      for (std::thread& caller : callers) caller.join();
    }
    check_fork(*kernels);
    std::printf("%s: %d checked, %d failed so far\n", name, checked.load(), failed.load());
  }
  return failed > 0;
}
