#include "team.h"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace jaxlstm {
namespace {

constexpr int kSpins = 1000;  // before a waiting thread lets others run
constexpr int kWaits = 4;     // longer than that, before a team may be found too large
constexpr int kMost = 256;    // threads

void pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

using Clock = std::chrono::steady_clock;

int64_t nanoseconds(Clock::duration time) noexcept {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
}

// Yields after a while: with more threads than processors the awaited one may not be running.
// Returns the nanoseconds that it took from there, or zero.
template <class Condition>
int64_t spin_until(const Condition& condition) noexcept {
  for (int i = 0; i < kSpins; ++i) {
    if (condition()) return 0;
    pause();
  }
  const Clock::time_point begin = Clock::now();
  while (!condition()) std::this_thread::yield();
  return nanoseconds(Clock::now() - begin) + 1;
}

struct Job {
  void (*body)(void*, int);
  void* context;
  std::atomic<int>* unfinished;
};

struct alignas(64) Worker {
  std::thread::native_handle_type thread{};
  int avoided = -1;  // the processor that it may not run on
  std::atomic<const Job*> job{nullptr};
  std::mutex mutex;
  std::condition_variable wake;

  [[noreturn]] void work(int index) noexcept {
    for (;;) {
      for (int i = 0; i < kSpins && job.load(std::memory_order_acquire) == nullptr; ++i) pause();
      if (job.load(std::memory_order_acquire) == nullptr) {
        std::unique_lock<std::mutex> lock(mutex);
        wake.wait(lock, [&] { return job.load(std::memory_order_acquire) != nullptr; });
      }
      const Job mine = *job.load(std::memory_order_acquire);
      mine.body(mine.context, index);
      job.store(nullptr, std::memory_order_relaxed);
      mine.unfinished->fetch_sub(1, std::memory_order_acq_rel);
    }
  }

  // A thread that wakes up on the processor of the one that woke it stays there for many
  // milliseconds, while others are idle.
  void keep_off([[maybe_unused]] int processor) noexcept {
#if defined(__linux__)
    cpu_set_t set;
    if (processor == avoided || sched_getaffinity(0, sizeof(set), &set) != 0) return;
    if (!CPU_ISSET(processor, &set) || CPU_COUNT(&set) < 2) return;
    CPU_CLR(processor, &set);
    if (pthread_setaffinity_np(thread, sizeof(set), &set) == 0) avoided = processor;
#endif
  }

  void start(const Job& next) noexcept {
    {
      std::lock_guard<std::mutex> lock(mutex);
      job.store(&next, std::memory_order_release);
    }
    wake.notify_one();
  }
};

struct Pool {
  std::atomic<bool> taken{false};
  std::vector<std::unique_ptr<Worker>> workers;  // that of index i is workers[i - 1]

  // Starts what is missing; returns how many there are now, the caller with them.
  int grow(int wanted) noexcept {
    try {
      while (static_cast<int>(workers.size()) + 1 < wanted) {
        auto worker = std::make_unique<Worker>();
        workers.reserve(workers.size() + 1);
        int index = static_cast<int>(workers.size()) + 1;
        std::thread thread([w = worker.get(), index] { w->work(index); });
        worker->thread = thread.native_handle();
        thread.detach();
        workers.push_back(std::move(worker));
      }
    } catch (const std::exception&) {  // no memory, or no more threads: fewer will do
    }
    return static_cast<int>(workers.size()) + 1;
  }
};

// Never destroyed: its threads run until the process ends. A forked child has none of them, and
// begins with another pool.
std::atomic<Pool*> the_pool{nullptr};
std::atomic<int> limit{0}, crowded_at{0};

Pool* pool() noexcept {
  Pool* found = the_pool.load(std::memory_order_acquire);
  if (found != nullptr) return found;
  static const int registered =
      pthread_atfork(nullptr, nullptr, [] { the_pool.store(nullptr, std::memory_order_relaxed); });
  auto* made = registered == 0 ? new (std::nothrow) Pool : nullptr;
  if (made != nullptr && !the_pool.compare_exchange_strong(found, made)) {
    delete made;
    return found;
  }
  return made;
}

// The processors' time that a container may use, in processors, rounded up; 0 for any.
int quota() noexcept {
  int processors = 0;
#if defined(__linux__)
  if (std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
    long time = 0, period = 0;
    if (std::fscanf(file, "%ld %ld", &time, &period) == 2 && time > 0 && period > 0) {
      processors = static_cast<int>((time + period - 1) / period);
    }
    std::fclose(file);
  }
#endif
  return processors;
}

int processors() noexcept {
  int count = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) count = CPU_COUNT(&set);
#endif
  static const int most = quota();
  if (most > 0 && count > most) count = most;
  return count < 1 ? 1 : count > kMost ? kMost : count;
}

int this_processor() noexcept {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

}  // namespace

int threads_available() noexcept {
  int most = limit.load(std::memory_order_relaxed);
  return most > 0 ? most : processors();
}

void limit_threads(int threads) noexcept { limit.store(threads, std::memory_order_relaxed); }

void crowd_at(int barrier) noexcept { crowded_at.store(barrier, std::memory_order_relaxed); }

struct Team::Sync {
  alignas(64) std::atomic<int64_t> arrived{0};
  alignas(64) std::atomic<int64_t> rounds{0};
  std::atomic<bool> alone{false};
  std::atomic<int64_t> waits{0}, waited{0};  // how often, and nanoseconds, of all threads
  Clock::time_point begin = Clock::now();

  // If on the average no more than one thread has worked at a time, the team is of no use.
  bool crowded(int size, int64_t round) const noexcept {
    const int forced = crowded_at.load(std::memory_order_relaxed);
    if (forced > 0) return round + 1 >= forced;
    if (waits.load(std::memory_order_relaxed) < kWaits) return false;
    const int64_t elapsed = nanoseconds(Clock::now() - begin) * (size - 1);
    return waited.load(std::memory_order_relaxed) > elapsed / 4 * 3;
  }
};

Team::Team(int wanted) noexcept {
  if (wanted < 2) return;
  Pool* p = pool();
  if (p == nullptr || p->taken.exchange(true, std::memory_order_acquire)) return;
  pool_ = p;
  sync_ = new (std::nothrow) Sync;
  int there = sync_ == nullptr ? 1 : p->grow(wanted);
  size_ = there < wanted ? there : wanted;
}

Team::~Team() {
  delete sync_;
  if (pool_ != nullptr) static_cast<Pool*>(pool_)->taken.store(false, std::memory_order_release);
}

void Team::run(void (*body)(void*, int), void* context) noexcept {
  std::atomic<int> unfinished{size_ - 1};
  const Job job{body, context, &unfinished};
  const int here = this_processor();
  for (int i = 1; i < size_; ++i) {
    Worker& worker = *static_cast<Pool*>(pool_)->workers[i - 1];
    if (here >= 0) worker.keep_off(here);
    worker.start(job);
  }
  body(context, 0);
  spin_until([&] { return unfinished.load(std::memory_order_acquire) == 0; });
}

void Team::barrier() noexcept {
  if (size_ == 1 || alone()) return;
  const int64_t ticket = sync_->arrived.fetch_add(1, std::memory_order_acq_rel);
  const int64_t round = ticket / size_;
  if (ticket % size_ == size_ - 1) {
    if (sync_->crowded(size_, round)) sync_->alone.store(true, std::memory_order_relaxed);
    sync_->rounds.store(round + 1, std::memory_order_release);
    return;
  }
  const int64_t time =
      spin_until([&] { return sync_->rounds.load(std::memory_order_acquire) > round; });
  if (time == 0) return;
  sync_->waits.fetch_add(1, std::memory_order_relaxed);
  sync_->waited.fetch_add(time, std::memory_order_relaxed);
}

bool Team::alone() const noexcept {
  return size_ > 1 && sync_->alone.load(std::memory_order_relaxed);
}

}  // namespace jaxlstm
