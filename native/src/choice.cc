#include <atomic>
#include <cstring>
#include <initializer_list>

#include "kernels.h"

namespace jaxlstm {

#if defined(JAXLSTM_X86)
namespace avx512 {
extern const Kernels table;
}
namespace avx2 {
extern const Kernels table;
}
#endif
namespace portable {
extern const Kernels table;
}

namespace {

std::atomic<const Kernels*> chosen{nullptr};

const Kernels* best() noexcept {
  for (const char* name : {"avx512", "avx2"}) {
    if (const Kernels* found = kernels_for(name)) return found;
  }
  return &portable::table;
}

}  // namespace

const Kernels* kernels_for(const char* name) noexcept {
#if defined(JAXLSTM_X86)
  __builtin_cpu_init();
  if (std::strcmp(name, "avx512") == 0) {
    const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                     __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
    return has ? &avx512::table : nullptr;
  }
  if (std::strcmp(name, "avx2") == 0) {
    const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return has ? &avx2::table : nullptr;
  }
#endif
  return std::strcmp(name, "portable") == 0 ? &portable::table : nullptr;
}

const Kernels& kernels() noexcept {
  const Kernels* found = chosen.load(std::memory_order_acquire);
  return found != nullptr ? *found : *best();
}

bool use(const char* name) noexcept {
  const Kernels* found = kernels_for(name);
  if (found != nullptr) chosen.store(found, std::memory_order_release);
  return found != nullptr;
}

}  // namespace jaxlstm
