// The threads that work on one call.
#pragma once

namespace jaxlstm {

// How many threads a call may have: the processors this process may use, or the limit if lower.
int threads_available() noexcept;
void limit_threads(int threads) noexcept;  // 0: no limit

// For tests: every team finds itself too large at its barrier of that number; 0: none has to.
void crowd_at(int barrier) noexcept;

// Takes the process's pool of threads for one call. If another call has it, or no thread can be
// started, the team is smaller, perhaps of the caller alone.
class Team {
 public:
  explicit Team(int wanted) noexcept;
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const noexcept { return size_; }

  // Calls body(context, index) once in each thread, index from 0 to size() - 1; returns after all.
  void run(void (*body)(void*, int), void* context) noexcept;

  // Within a body: waits until all have come here.
  void barrier() noexcept;

  // Within a body, after a barrier: whether the threads, with too few processors free, have done
  // little but wait for one another. From then on that of index 0 is to do the work of all, and
  // the others are to return; its barriers do nothing.
  bool alone() const noexcept;

 private:
  struct Sync;
  int size_ = 1;
  void* pool_ = nullptr;
  Sync* sync_ = nullptr;
};

}  // namespace jaxlstm
