// Runs the CUDA kernels on the CPU against the CPU codec, under the sanitizers that the build chose.
//
//   emulator_run
#include <cstdio>

#include "dumont_cpu.h"
#include "emulator.h"

int main() {
    std::printf("emulator_run: CPU codec of ABI %u; no kernels yet\n", dumont_abi_version());
    return 0;
}
