#include "../common/arithmetic.h"
#include "bank_index_kernel.cuh"

namespace deepclust::cuda {

void find_bad_index(const int64_t* index, int64_t count, int64_t lowest, int64_t rows, unsigned long long* bad,
                    void* stream) {
  if (count == 0) return;
  DC_LAUNCH(first_bad_index, static_cast<unsigned>(ceil_div(count, kThreads)), kThreads, 0, static_cast<Stream>(stream))
  (index, count, lowest, rows, bad);
}

}  // namespace deepclust::cuda
