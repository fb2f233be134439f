// Data whose planes have the histograms at which a choice of the encoder turns.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "dumont_cpu.h"
#include "streams.h"
#include "zipnn.h"

namespace dumont::test {

// How often, in all, a plane of `size` symbols has each value. The shapes are those at which a choice of the encoder turns.
struct Shape {
    const char* name;
    void (*fill)(uint64_t size, std::vector<double>& weights /* [256] */);
};

inline void fill_flat(std::vector<double>& weights, size_t values) {
    std::fill_n(weights.begin(), values, 1.0);
}

inline void fill_geometric(std::vector<double>& weights, size_t values, double ratio) {
    double weight = 1;
    for (size_t value = 0; value < values; ++value, weight *= ratio) weights[value] = weight;
}

inline constexpr Shape kShapes[] = {
    {"flat 256", [](uint64_t, std::vector<double>& weights) { fill_flat(weights, 256); }},
    {"flat 200", [](uint64_t, std::vector<double>& weights) { fill_flat(weights, 200); }},
    {"flat 128", [](uint64_t, std::vector<double>& weights) { fill_flat(weights, 128); }},  // all weights alike
    {"flat 129", [](uint64_t, std::vector<double>& weights) { fill_flat(weights, 129); }},
    {"flat 3", [](uint64_t, std::vector<double>& weights) { fill_flat(weights, 3); }},
    {"two alike", [](uint64_t, std::vector<double>& weights) { weights[0] = weights[255] = 1; }},
    {"two neighbours", [](uint64_t, std::vector<double>& weights) { weights[0] = 1, weights[1] = 3; }},
    {"two, one of them once", [](uint64_t size, std::vector<double>& weights) {
         weights[7] = static_cast<double>(size);
         weights[200] = 1;
     }},
    {"one has 99.9 %", [](uint64_t, std::vector<double>& weights) {
         fill_flat(weights, 256);
         weights[100] = 255 * 999;
     }},
    {"one has 99.9 % of few", [](uint64_t, std::vector<double>& weights) {
         fill_flat(weights, 5);
         weights[128] = 5 * 999;
     }},
    {"Fibonacci", [](uint64_t, std::vector<double>& weights) {  // the deepest tree of a size
         weights[0] = weights[1] = 1;
         for (size_t value = 2; value < 24; ++value) weights[value] = weights[value - 1] + weights[value - 2];
     }},
    {"Fibonacci backward", [](uint64_t, std::vector<double>& weights) {
         weights[255] = weights[254] = 1;
         for (size_t value = 253; value > 231; --value) weights[value] = weights[value + 1] + weights[value + 2];
     }},
    {"halves", [](uint64_t, std::vector<double>& weights) { fill_geometric(weights, 17, 0.5); }},
    {"256 of all lengths", [](uint64_t, std::vector<double>& weights) { fill_geometric(weights, 256, 0.96); }},
    {"many of the longest", [](uint64_t, std::vector<double>& weights) {  // each far below 2^-11
         fill_flat(weights, 256);
         weights[3] = 60'000, weights[4] = 20'000, weights[250] = 9'000;
     }},
    {"steps", [](uint64_t, std::vector<double>& weights) {
         for (size_t value = 0; value < 256; ++value) weights[value] = static_cast<double>(1 << (value * 7 % 11));
     }},
    {"just gains", [](uint64_t, std::vector<double>& weights) {  // about 7.6 bits
         fill_flat(weights, 256);
         for (size_t value = 0; value < 40; ++value) weights[value] = 5;
     }},
};
constexpr size_t kShapeCount = sizeof kShapes / sizeof *kShapes;

inline Bytes shaped_plane(const Shape& shape, uint64_t size, Random& random) {
    std::vector<double> weights(256);
    shape.fill(size, weights);
    double all = 0;
    for (const double weight : weights) all += weight;
    Bytes plane;
    const uint64_t offset = random() % 4 == 0 ? random() : 0;  // some planes have the histogram turned
    for (size_t value = 0; value < 256; ++value) {
        if (weights[value] == 0) continue;
        const auto count = static_cast<uint64_t>(weights[value] * static_cast<double>(size) / all);
        plane.insert(plane.end(), count == 0 ? 1 : count, static_cast<uint8_t>(value + offset));
    }
    std::shuffle(plane.begin(), plane.end(), random);
    plane.resize(size, plane[0]);
    return plane;
}

// Every plane has the shape's histogram once the sign is moved.
inline Bytes shaped_data(const DtypeName& dtype, const Shape& shape, uint64_t elements, Random& random) {
    std::vector<Bytes> planes;
    for (uint32_t plane = 0; plane < dtype.bytes; ++plane) planes.push_back(shaped_plane(shape, elements, random));
    Bytes data(elements * dtype.bytes);
    for (uint64_t i = 0; i < elements; ++i) {
        uint32_t value = 0;
        for (uint32_t plane = 0; plane < dtype.bytes; ++plane) value |= static_cast<uint32_t>(planes[plane][i]) << (8 * plane);
        if (dtype.dtype == DUMONT_BF16) value = restore_sign16(static_cast<uint16_t>(value));
        if (dtype.dtype == DUMONT_FP32) value = restore_sign32(value);
        std::memcpy(data.data() + i * dtype.bytes, &value, dtype.bytes);
    }
    return data;
}

}  // namespace dumont::test
