// What all kernels are made of: vectors, and work shared out among XLA's threads.
//
// Sums are taken in an order that depends on shapes alone, never on the number of threads.

#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {  // in a header, so that two libraries in one process, for other processors, share nothing

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
constexpr int BLOCK = 16;  // channels and features come in multiples of this

typedef float Vector __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

inline Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
inline void store(float* to, Vector value) { *reinterpret_cast<Vector*>(to) = value; }

// Floats that begin with a line of cache, as a vector that lies across two is loaded twice. They are not set to anything.
class Floats {
 public:
  explicit Floats(int64_t size = 0) { hold(size); }
  // Makes room for so many; what was there before may be lost.
  void hold(int64_t size) {
    if (size <= size_) return;
    values_.reset(new float[size + LINE / sizeof(float)]);
    size_ = size;
    const auto from = reinterpret_cast<std::uintptr_t>(values_.get());
    begin_ = reinterpret_cast<float*>((from + LINE - 1) / LINE * LINE);
  }
  float* data() const { return begin_; }

 private:
  static constexpr int64_t LINE = 64;
  int64_t size_ = 0;
  std::unique_ptr<float[]> values_;
  float* begin_ = nullptr;
};

// Calls work(0) ... work(count - 1) on the pool's threads and on this one, and returns when all are done. This thread
// takes part, so that a pool whose threads all wait here cannot lock up.
inline void parallel(ffi::ThreadPool& pool, int64_t count, const std::function<void(int64_t)>& work) {
  struct Shared {
    std::atomic<int64_t> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable finished;
  };
  auto shared = std::make_shared<Shared>();
  auto take = [shared, count, &work] {  // `work` is there as long as a number below `count` is left
    for (int64_t i; (i = shared->next.fetch_add(1)) < count;) {
      work(i);
      if (shared->done.fetch_add(1) + 1 == count) {
        std::lock_guard<std::mutex> lock(shared->mutex);
        shared->finished.notify_all();
      }
    }
  };
  for (int64_t i = 1; i < std::min(count, pool.num_threads()); ++i) pool.Schedule(std::function<void()>(take));
  take();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->finished.wait(lock, [&] { return shared->done == count; });
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace
