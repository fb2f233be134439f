// The kernels that the emulator runs: the sources that NVRTC compiles, and their names.
#include "cuda_on_cpu.h"

#if __has_include("zipnn_decode.cu")
#include "zipnn_decode.cu"
#endif
