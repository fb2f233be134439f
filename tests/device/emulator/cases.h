// What the suites of `emulator_run` have in common: cases that are a function of their number, and how each is run.
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

// Suites of the encode kernels, in encode.cpp and frames.cpp; return the process's exit status.
int run_encode(uint64_t first, uint64_t most);
int run_frames(uint64_t first, uint64_t most);

}  // namespace dumont::test
