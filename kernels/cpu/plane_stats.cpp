// Plug-in entropy estimates from byte counts.
#include "plane_stats.h"

#include <math.h>
#include <string.h>

#include "../shared/plane_sample.h"
#include "kernels.h"

namespace dumont {
namespace {

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
    if (size < kSmallestSampled) return false;
    uint8_t sample[kSampled];
    const size_t stride = size / kSampleRuns;
    for (size_t run = 0; run < kSampleRuns; ++run) memcpy(sample + run * kSampleRun, plane + run * stride, kSampleRun);
    uint32_t counts[256];
    kernels().count_bytes(sample, kSampled, counts, nullptr);  // too few for pairs
    uint32_t squares = 0;
    for (uint32_t s = 0; s < 256; ++s) squares += counts[s] * counts[s];
    return sample_is_hopeless(squares);
}

}  // namespace dumont
