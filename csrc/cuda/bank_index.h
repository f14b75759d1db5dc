// Whether indices lie in the memory bank, before an op reads or writes there.
#pragma once

#include <cstdint>

namespace deepclust::cuda {

// Lowers `bad`, ~0 before, to the first place of index [count] where a number is below `lowest` or not below `rows`.
void find_bad_index(const int64_t* index, int64_t count, int64_t lowest, int64_t rows, unsigned long long* bad,
                    void* stream);

}  // namespace deepclust::cuda
