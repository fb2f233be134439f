// The machine's C interface, for the C++ suites and for ctypes. Every function may be called from any thread.
#pragma once

#include <cstdint>

#define DUMONT_MACHINE_API extern "C" __attribute__((visibility("default")))

// Takes in the kernels of a PTX text; a kernel that has the name of an earlier one replaces it. 0, or 1 with the reason
// in machine_error().
DUMONT_MACHINE_API int machine_load(const char* ptx);
DUMONT_MACHINE_API int machine_load_file(const char* path);

// Runs a kernel to its end. `args` as for cuLaunchKernel: the address of each argument, in order. Returns 0, or 1 with
// the reason in machine_error().
DUMONT_MACHINE_API int machine_launch(const char* kernel, unsigned grid_x, unsigned block_x, unsigned shared_bytes,
                                       void** args);

// Why this thread's last call failed; empty if it did not.
DUMONT_MACHINE_API const char* machine_error();

// Which warp goes next, and which of its lanes: 0 the first, 1 the last, otherwise any, drawn with that seed.
DUMONT_MACHINE_API void machine_set_order(unsigned seed);

// The byte that shared memory is full of when a block starts, 0xA5 if never set.
DUMONT_MACHINE_API void machine_set_fill(unsigned byte);

// How many warp instructions a block may take before it counts as one that does not end.
DUMONT_MACHINE_API void machine_set_most_steps(uint64_t most);

// Global memory. Within 256 bytes of a range that was added only ranges may be touched; if `strict`, nowhere else
// either.
DUMONT_MACHINE_API void machine_add_memory(const void* begin, uint64_t size);
DUMONT_MACHINE_API void machine_remove_memory(const void* begin);
DUMONT_MACHINE_API void machine_set_strict(int strict);

// Says that bytes of global memory hold nothing: a result may not depend on them before a kernel writes them.
DUMONT_MACHINE_API void machine_mark_unwritten(const void* begin, uint64_t size);

// What the launches since the last reset executed, as JSON by kernel. Bank conflicts and sectors are counted while
// `counting`.
DUMONT_MACHINE_API void machine_set_counting(int counting);
DUMONT_MACHINE_API const char* machine_counts();
DUMONT_MACHINE_API void machine_reset_counts();

// For mutation tests: a kernel's barriers, each with its place in the source; and takes the effect of one away (-1: of
// none). A barrier that also reduces goes on waiting and reducing, but orders no memory.
DUMONT_MACHINE_API int machine_barriers(const char* kernel);
DUMONT_MACHINE_API const char* machine_barrier(const char* kernel, int index);
DUMONT_MACHINE_API void machine_weaken(const char* kernel, int index);

namespace dumont::machine {

// machine_launch with the arguments themselves; their types must be exactly the kernel's, nothing checks them.
template <class... A>
int launch(const char* kernel, unsigned grid_x, unsigned block_x, unsigned shared_bytes, A... arguments) {
    void* addresses[] = {static_cast<void*>(&arguments)..., nullptr};
    return machine_launch(kernel, grid_x, block_x, shared_bytes, addresses);
}

}  // namespace dumont::machine
