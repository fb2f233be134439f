// The sample of a plane that tells whether looking for a code is worth while. Host and device look at the same bytes, so that
// they give up the same planes.
#pragma once

#include "portable.h"

namespace dumont {

constexpr uint32_t kSampleRun = 64;   // consecutive symbols: one cache line of bytes
constexpr uint32_t kSampleRuns = 32;  // 2 KiB in all; run r begins at r * (symbols / kSampleRuns)
constexpr uint32_t kSampled = kSampleRun * kSampleRuns;
constexpr uint32_t kSmallestSampled = 2 * kSampled;  // smaller planes are not sampled

// Two symbols drawn at random are equal with probability 2^-H2, where H2 is Renyi's entropy of order 2, which is at most
// Shannon's. Rarer than 2^-7.8, and coding is hopeless: a block must get below 7.6 bits. The sample's error is 0.02.
constexpr uint32_t kHopelessVariety = 223;

// `squares` is the sum of the squares of the sample's counts.
DUMONT_HD bool sample_is_hopeless(uint32_t squares) {
    return squares - kSampled < kSampled * (kSampled - 1) / kHopelessVariety;
}

}  // namespace dumont
