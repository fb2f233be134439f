// Plug-in entropy estimates from byte counts.
#include "plane_stats.h"

#include <math.h>

#include "kernels.h"

namespace dumont {
namespace {

constexpr size_t kSampleRun = 64;     // consecutive bytes: one cache line
constexpr size_t kSampleRuns = 32;    // 2 KiB in all, spread over the plane
constexpr float kHopelessBits = 7.8f;  // a block must get below 7.6; the sample's error is about 0.05

float bits_of(float probability) {
    return -probability * log2f(probability);
}

}  // namespace

float estimate_bits(const uint32_t* counts, uint64_t total) {
    uint32_t distinct = 0;
    uint32_t most = 0;
    float sum = 0;  // of count * log2(count)
    for (uint32_t s = 0; s < 256; ++s) {
        if (counts[s] == 0) continue;
        const auto count = static_cast<float>(counts[s]);
        sum += count * log2f(count);
        ++distinct;
        most = counts[s] > most ? counts[s] : most;
    }
    if (distinct <= 1) return 0;
    const auto size = static_cast<float>(total);
    const float missing = static_cast<float>(distinct - 1) / (2 * size * static_cast<float>(M_LN2));
    const float entropy = log2f(size) - sum / size + missing;
    // A code word takes at least one bit. Above one half the commonest symbol takes exactly that, whatever its
    // information: 1 bit to tell it from the rest, and the rest's own entropy when it is one of them.
    const float commonest = static_cast<float>(most) / size;
    if (commonest <= 0.5f) return entropy;
    return 1 + entropy - bits_of(commonest) - bits_of(1 - commonest);
}

bool looks_incompressible(const uint8_t* plane, size_t size) {
    if (size < 2 * kSampleRun * kSampleRuns) return false;
    uint32_t counts[256] = {};
    const size_t stride = size / kSampleRuns;
    for (size_t run = 0; run < kSampleRuns; ++run) {
        for (size_t i = 0; i < kSampleRun; ++i) ++counts[plane[run * stride + i]];
    }
    return estimate_bits(counts, kSampleRun * kSampleRuns) > kHopelessBits;
}

}  // namespace dumont
