#include "initial_clusters_kernel.cuh"

namespace deepclust::cuda {

std::size_t ComponentsPlan::workspace_bytes() const {
  Workspace memory;
  const Components all(memory, *this);
  return memory.bytes();
}

void initial_clusters(const ComponentsPlan& plan, const int64_t* indices, void* workspace, int64_t* labels,
                      unsigned long long* bad_row, void* stream) {
  const auto on = static_cast<Stream>(stream);
  Workspace memory(workspace);
  const Components all(memory, plan);
  const auto blocks = static_cast<unsigned>(plan.n / kThreads + 1), chunks = static_cast<unsigned>(plan.chunks);
  DC_LAUNCH(start_components, blocks, kThreads, 0, on)(plan, all, bad_row);
  if (plan.n == 0) return;
  DC_LAUNCH(join_neighbours, blocks, kThreads, 0, on)(plan, indices, all, bad_row);
  DC_LAUNCH(find_roots, chunks, kThreads, 0, on)(plan, all);
  DC_LAUNCH(number_roots, chunks, kThreads, 0, on)(plan, all);
  DC_LAUNCH(name_members, blocks, kThreads, 0, on)(plan, all, labels);
}

}  // namespace deepclust::cuda
