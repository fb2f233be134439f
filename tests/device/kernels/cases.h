// What the suites of `machine_run` have in common: cases that are a function of their number, and how each is run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "device_path.h"

namespace dumont::test {

constexpr uint64_t kMostCases = ~0ull;

// A case is a function of its number, whichever ran before.
inline Random random_for(uint64_t seed, uint64_t number) {
    return Random(seed * 0x9E3779B97F4A7C15 + number);
}

inline std::vector<LaunchSetting> settings_for(uint32_t misplace, Random& random) {
    const auto drawn = static_cast<unsigned>(2 + below(random, 1u << 30));
    return {{0, 0xA5, misplace}, {1, 0x00, misplace}, {drawn, 0xFF, misplace}};
}

// As printf's %llu wants it.
inline unsigned long long wide(uint64_t value) {
    return value;
}

// A suite of `machine_run`: a file in suites/ that has the suite's name, and registers it there:
//
//     const Suite suite("frames", run);
//
// `run` takes the number of the first case and how many cases at most, and returns the process's exit status.
struct Suite {
    const char* name;
    int (*run)(uint64_t first, uint64_t most);
    const Suite* next;
    static const Suite* all;

    Suite(const char* its_name, int (*its_run)(uint64_t first, uint64_t most)) : name(its_name), run(its_run), next(all) {
        all = this;
    }
};

}  // namespace dumont::test
