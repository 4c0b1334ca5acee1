#include "memory.h"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace jaxlstm {
namespace {

constexpr std::size_t kLine = 64, kPage = 4096, kHuge = 2u << 20;
constexpr std::size_t kKeep = 64u << 20;  // a larger workspace goes back at once

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kSlots = 0;  // so that a use after the end is seen
#else
constexpr int kSlots = 4;
#endif

struct alignas(kLine) Block {
  std::size_t bytes;  // of the workspace, which follows
};

// Without a lock, which a fork could leave held.
std::atomic<Block*> slots[kSlots + 1];

Block* fresh(std::size_t bytes) {
  std::size_t whole = sizeof(Block) + bytes;
  std::size_t alignment = whole >= kHuge ? kHuge : kLine;
  whole = (whole + alignment - 1) / alignment * alignment;
  auto* block = static_cast<Block*>(std::aligned_alloc(alignment, whole));
  if (block == nullptr) throw std::bad_alloc();
  expect_filled(block, whole);
  block->bytes = whole - sizeof(Block);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  std::memset(block + 1, 0xff, block->bytes);  // NaN, so that a use before the write is seen
#endif
  return block;
}

}  // namespace

Workspace::Workspace(std::size_t bytes) {
  Block* block = nullptr;
  for (int i = 0; i < kSlots && block == nullptr; ++i) {
    block = slots[i].exchange(nullptr, std::memory_order_acquire);
    if (block != nullptr && block->bytes < bytes) {
      std::free(block);
      block = nullptr;
    }
  }
  if (block == nullptr) block = fresh(bytes);
  data_ = reinterpret_cast<char*>(block + 1);
}

Workspace::~Workspace() {
  Block* block = reinterpret_cast<Block*>(data_) - 1;
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(data_, block->bytes);
#endif
  for (int i = 0; i < kSlots && block->bytes <= kKeep; ++i) {
    Block* none = nullptr;
    if (slots[i].compare_exchange_strong(none, block, std::memory_order_release)) return;
  }
  std::free(block);
}

void expect_filled([[maybe_unused]] void* array, [[maybe_unused]] std::size_t bytes) noexcept {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (array == nullptr || bytes < 2 * kHuge) return;
  auto begin = (reinterpret_cast<std::uintptr_t>(array) + kPage - 1) & ~(kPage - 1);
  auto end = (reinterpret_cast<std::uintptr_t>(array) + bytes) & ~(kPage - 1);
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // a hint: may fail
#endif
}

void forbid([[maybe_unused]] char* bytes, [[maybe_unused]] std::size_t size) noexcept {
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(bytes, size);
#endif
}

}  // namespace jaxlstm
