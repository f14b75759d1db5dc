// What the emulator throws: a rule of the kernel dialect broken, with the kernel, the block and the thread that broke
// it.
#pragma once

#include <stdexcept>

namespace deepclust::emu {

struct EmulationError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace deepclust::emu
