// DC_SYNC and its like, and the list of their places that tests walk to prove each of them needed.
#pragma once

#include <source_location>
#include <string>
#include <vector>

namespace deepclust::emu {

// One place in the text, per template instantiation.
struct BarrierSite {
  const char* name;
  const char* file;
  unsigned line;
  bool deleted = false;
};
// One that is listed, and can be deleted; made when the first thread gets there.
struct ListedBarrier : BarrierSite {
  ListedBarrier(const char* name, const char* file, unsigned line);
};

void sync_threads(const BarrierSite& site);
void sync_warp(unsigned mask, const BarrierSite& site, const std::source_location& where);
// How many threads of the block came with a true predicate: __syncthreads_count and its like.
int sync_threads_count(bool predicate, const char* name, const std::source_location& where);

// The DC_SYNC or DC_SYNCWARP on that line returns at once, as if it were deleted. `file` is a path or its last parts.
void set_deleted_barrier(const std::string& file, unsigned line);
void clear_deleted_barrier();
// How often a thread passed the deleted barrier: zero says that the line holds none, or was never reached.
long long deleted_barrier_hits();

struct BarrierPlace {
  std::string name;  // "DC_SYNC" or "DC_SYNCWARP"
  std::string file;  // "csrc/cuda/joint_kernel.cuh"
  unsigned line;
};
// Every DC_SYNC and DC_SYNCWARP that any thread has met so far, sorted, each once.
std::vector<BarrierPlace> barrier_sites();

}  // namespace deepclust::emu
