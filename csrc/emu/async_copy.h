// Copies that a thread starts and later waits for (cp.async): until the wait, what lies at the destination is poison.
#pragma once

#include <source_location>

namespace deepclust::emu {

void start_copy(void* to, const void* from, std::size_t bytes, const std::source_location& where);
// Ends all copies of this thread.
void finish_copies();

}  // namespace deepclust::emu
