// Runs CUDA kernels on the CPU: one block after the other, a fiber for each thread of the block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#define DUMONT_EMULATOR_API extern "C" __attribute__((visibility("default")))

// Runs a registered kernel to its end. `args` as for cuLaunchKernel: the address of each argument, in order.
// Returns 0, or 1 with the reason in emulator_error(). Launches from several threads take turns.
DUMONT_EMULATOR_API int emulator_launch(const char* kernel, unsigned grid_x, unsigned block_x, unsigned shared_bytes,
                                        void** args);

// Why the last launch failed; valid until the next one.
DUMONT_EMULATOR_API const char* emulator_error();

// Which of the threads that can go on goes next: 0 the first, 1 the last, otherwise any, drawn with that seed.
// A result that depends on it shows a missing barrier.
DUMONT_EMULATOR_API void emulator_set_order(unsigned seed);

// The byte that shared memory is full of when a block starts, 0xA5 if never set. A result that depends on it shows a read
// of what was not written.
DUMONT_EMULATOR_API void emulator_set_fill(unsigned byte);

// Other than 0: abort() at an error instead of returning it, for a debugger.
DUMONT_EMULATOR_API void emulator_set_abort(int abort_on_error);

// Switches between fibers since the library was loaded.
DUMONT_EMULATOR_API uint64_t emulator_switches();

namespace dumont::emulator {

// Registered by the constructor of a static object, see DUMONT_EMULATE.
struct Kernel {
    Kernel(const char* name, void (*body)(void** args));

    const char* name;
    void (*body)(void** args);
    Kernel* next;
};

template <auto kernel>
struct Body;

template <class... A, void (*kernel)(A...)>
struct Body<kernel> {
    static void run(void** args) { call(args, std::index_sequence_for<A...>()); }

    template <size_t... i>
    static void call([[maybe_unused]] void** args, std::index_sequence<i...>) {
        kernel(*static_cast<A*>(args[i])...);
    }
};

// emulator_launch with the arguments themselves; their types must be exactly the kernel's, nothing checks them.
template <class... A>
int launch(const char* kernel, unsigned grid_x, unsigned block_x, unsigned shared_bytes, A... arguments) {
    void* addresses[] = {static_cast<void*>(&arguments)..., nullptr};
    return emulator_launch(kernel, grid_x, block_x, shared_bytes, addresses);
}

// ---------------------------------------------------------------------------------------------------------------
// For the built-in functions of cuda_on_cpu.h.

enum class Collective : uint8_t {
    kNone,
    kSyncThreads,  // of the block; all others are of a warp
    kSyncWarp,
    kShuffle,
    kBallot,
    kMatchAny,
    kReduceAdd,
    kReduceMin,
    kReduceMax,
    kReduceAnd,
    kReduceOr,
    kReduceXor,
};

// Waits until all lanes of `mask` have come to the same collective with the same mask; returns this lane's result.
// `source` is the lane that a shuffle reads.
uint64_t exchange(Collective kind, uint32_t mask, uint64_t value = 0, uint32_t source = 0);

// Waits for all threads of the block; returns how many of them passed true.
uint32_t sync_block(bool predicate = false);

uint32_t lane_id();
uint8_t* dynamic_shared();

// Ends the launch with this error, from within a kernel.
[[noreturn, gnu::format(printf, 1, 2)]] void fail(const char* format, ...);

}  // namespace dumont::emulator

// Makes a kernel known by its name; once per kernel, after its definition.
#define DUMONT_EMULATE(name) \
    static ::dumont::emulator::Kernel emulated_##name(#name, &::dumont::emulator::Body<&name>::run)
