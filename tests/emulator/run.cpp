// Runs the kernels of kernels.cpp against the CPU codec. There are none yet: it says what it was built with.
#include <cstdio>

#include "dumont_cpu.h"
#include "emulator.h"

int main() {
    std::printf("emulator_run: no kernels yet; the oracle is the %s path of the CPU codec\n", dumont_cpu_path());
    return 0;
}
