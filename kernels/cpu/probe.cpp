// Guesses the element type of unlabelled bytes from the entropy of the planes that each type would have.
//
// One pass counts, at every position modulo 4, the byte itself and the two bytes that the sign move would make of it
// and its successor. Every candidate's planes are sums of those tables.
#include <string.h>

#include "dumont_cpu.h"
#include "plane_stats.h"

namespace dumont {
namespace {

constexpr uint32_t kPositions = 4;
constexpr float kBlockOverhead = 0.003f;  // tree, jump table and Huffman's distance from the entropy, of a raw plane
constexpr float kLeastGain = 0.95f;       // a plane above this stays raw

using Counts = uint32_t[256];

struct Sample {
    Counts byte[kPositions];
    Counts exponent[kPositions];  // of an element whose sign and exponent start in this byte's top neighbour
    Counts mantissa[kPositions];
};

void count_sample(const uint8_t* bytes, uint64_t size, Sample& sample) {
    memset(&sample, 0, sizeof sample);
    for (uint64_t i = 0; i + 1 < size; ++i) {
        const uint32_t low = bytes[i];
        const uint32_t high = bytes[i + 1];
        const uint32_t position = i % kPositions;
        ++sample.byte[position][low];
        ++sample.exponent[position][(high << 1 | low >> 7) & 0xFF];
        ++sample.mantissa[position][(low & 0x7F) | (high & 0x80)];
    }
    ++sample.byte[(size - 1) % kPositions][bytes[size - 1]];
}

// The encoded fraction of a plane that has the counts of tables[first], tables[first + step], ...
float plane_cost(const Counts* tables, uint32_t first, uint32_t step) {
    Counts counts = {};
    uint64_t total = 0;
    for (uint32_t position = first; position < kPositions; position += step) {
        for (uint32_t s = 0; s < 256; ++s) {
            counts[s] += tables[position][s];
            total += tables[position][s];
        }
    }
    const float bits = estimate_bits(counts, total);
    if (bits == 0) return 0;
    const float cost = bits / 8 + kBlockOverhead;
    return cost > kLeastGain ? 1 : cost;
}

float fp32_cost(const Sample& sample, uint32_t phase) {
    const uint32_t second = (phase + 1) % kPositions;
    const uint32_t third = (phase + 2) % kPositions;
    return (plane_cost(sample.byte, phase, kPositions) + plane_cost(sample.byte, second, kPositions) +
            plane_cost(sample.mantissa, third, kPositions) + plane_cost(sample.exponent, third, kPositions)) /
           4;
}

float bf16_cost(const Sample& sample, uint32_t phase) {
    return (plane_cost(sample.mantissa, phase, 2) + plane_cost(sample.exponent, phase, 2)) / 2;
}

float fp16_cost(const Sample& sample, uint32_t phase) {
    return (plane_cost(sample.byte, phase, 2) + plane_cost(sample.byte, 1 - phase, 2)) / 2;
}

}  // namespace
}  // namespace dumont

int64_t dumont_probe(const uint8_t* sample_bytes, uint64_t size, float* fractions) {
    using namespace dumont;
    if (size < kPositions) return DUMONT_ARGUMENT;
    Sample sample;
    count_sample(sample_bytes, size, sample);
    for (uint32_t phase = 0; phase < 4; ++phase) {
        fractions[DUMONT_PROBE_FP32_PHASE0 + phase] = fp32_cost(sample, phase);
    }
    for (uint32_t phase = 0; phase < 2; ++phase) {
        fractions[DUMONT_PROBE_BF16_PHASE0 + phase] = bf16_cost(sample, phase);
        fractions[DUMONT_PROBE_FP16_PHASE0 + phase] = fp16_cost(sample, phase);
    }
    fractions[DUMONT_PROBE_FP8] = plane_cost(sample.byte, 0, 1);
    return 0;
}
