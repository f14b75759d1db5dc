// Tasks whose bounds depend on the sizes alone, on libtorch's own thread pool.
#pragma once

#include "stable.h"

namespace deepclust {

// Below this many multiply-adds a call is done before a second thread has woken up.
inline constexpr int64_t kWorthThreads = 1 << 19;

// f(task) for every task, in any order and possibly at once; `work` is the cost of all of them in multiply-adds.
template <typename F>
void parallel_tasks(int64_t tasks, int64_t work, const F& f) {
  if (tasks <= 1 || work < kWorthThreads) {
    for (int64_t task = 0; task < tasks; ++task) f(task);
    return;
  }
  torch::stable::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) f(task);
  });
}

}  // namespace deepclust
