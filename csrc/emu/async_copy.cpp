#include "async_copy.h"

#include <cstring>
#include <string>

#include "block.h"

namespace deepclust::emu {

void start_copy(void* to, const void* from, std::size_t bytes, const std::source_location& where) {
  for (const void* const address : {static_cast<const void*>(to), from})
    if (reinterpret_cast<std::uintptr_t>(address) % bytes != 0)
      fail("copy_async at " + place(where.file_name(), where.line()) + ": the address must be a multiple of " +
           std::to_string(bytes));
  std::memset(to, 0xff, bytes);
  running_block().self().copies.push_back({to, from, bytes});
}

void finish_copies() {
  Thread& thread = running_block().self();
  for (const PendingCopy& copy : thread.copies) std::memcpy(copy.to, copy.from, copy.bytes);
  thread.copies.clear();
}

}  // namespace deepclust::emu
