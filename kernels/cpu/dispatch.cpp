// Chooses the instruction set at run time.
#include <string.h>

#include "dumont_cpu.h"
#include "kernels.h"

namespace dumont {

#if defined(__x86_64__)
namespace portable { extern const Kernels kernels; }
namespace avx2 { extern const Kernels kernels; }
namespace avx512 { extern const Kernels kernels; }
#elif defined(__aarch64__)
namespace neon { extern const Kernels kernels; }
#else
namespace portable { extern const Kernels kernels; }
#endif

namespace {

struct Path {
    const Kernels* kernels;
    bool (*runs_here)();
};

[[maybe_unused]] bool always() {
    return true;
}

#if defined(__x86_64__)

// The features that -march=x86-64-v3 and -v4 may use, as far as compilers emit them.
bool has_v3() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
           __builtin_cpu_supports("fma") && __builtin_cpu_supports("popcnt");
}

// Every CPU with -march=x86-64-v4, VBMI and VBMI2: Ice Lake, Zen 4 and later.
bool has_v4_vbmi() {
    return has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") &&
           __builtin_cpu_supports("avx512vbmi2");
}

// Best first.
constexpr Path kPaths[] = {{&avx512::kernels, has_v4_vbmi}, {&avx2::kernels, has_v3}, {&portable::kernels, always}};
#elif defined(__aarch64__)
constexpr Path kPaths[] = {{&neon::kernels, always}};
#else
constexpr Path kPaths[] = {{&portable::kernels, always}};
#endif

const Kernels* selected = nullptr;

const Kernels* best_path() {
    for (const Path& path : kPaths) {
        if (path.runs_here()) return path.kernels;
    }
    return nullptr;  // unreachable: the last path always runs
}

}  // namespace

const Kernels& kernels() {
    const Kernels* chosen = __atomic_load_n(&selected, __ATOMIC_RELAXED);
    if (chosen == nullptr) {
        // Threads that race here all store the same pointer.
        chosen = best_path();
        __atomic_store_n(&selected, chosen, __ATOMIC_RELAXED);
    }
    return *chosen;
}

}  // namespace dumont

uint32_t dumont_abi_version() {
    return 5;
}

const char* dumont_cpu_path() {
    return dumont::kernels().name;
}

int64_t dumont_select_cpu_path(const char* name) {
    for (const dumont::Path& path : dumont::kPaths) {
        if (strcmp(path.kernels->name, name) != 0 || !path.runs_here()) continue;
        __atomic_store_n(&dumont::selected, path.kernels, __ATOMIC_RELAXED);
        return 0;
    }
    return DUMONT_ARGUMENT;
}
