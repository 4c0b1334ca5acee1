// Memory for a call's packed weights and blocks of time, and for its large results.
#pragma once

#include <cstddef>

namespace jaxlstm {

// Aligned to a cache line; the last few are kept for the next calls, their pages already there.
class Workspace {
 public:
  explicit Workspace(std::size_t bytes);  // throws std::bad_alloc
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  char* data() const noexcept { return data_; }

 private:
  char* data_;
};

// Asks for huge pages, where there are any and they pay: most of the time that it takes to fill
// a large fresh array goes into its first touch.
void expect_filled(void* array, std::size_t bytes) noexcept;

// Tells AddressSanitizer, if that is watching, that nothing may touch these bytes.
void forbid(char* bytes, std::size_t size) noexcept;

}  // namespace jaxlstm
