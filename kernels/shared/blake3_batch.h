// Regions of memory whose BLAKE3 digests a device computes in one go.
//
// The host learns sizes and constants through dumont_layout (kernels/cpu/device_tables.cpp).
#pragma once

#include "blake3.h"

namespace dumont {

// A CTA takes a group, as many chunks as it has threads. A power of two, so that a group is a subtree.
constexpr uint32_t kBlake3Group = 128;
constexpr uint32_t kBlake3GroupSize = kBlake3Group * kBlake3Chunk;  // bytes
constexpr uint32_t kBlake3RootThreads = 256;  // in each CTA of blake3_roots

struct Blake3Region {
    uint64_t data;    // address; any
    uint64_t size;    // bytes
    uint64_t first;   // the region's first group: the groups of all regions before it, each of which has at least one
    uint64_t digest;  // address of 32 bytes, written; a multiple of 16
};

struct Blake3Batch {
    uint64_t regions;  // address of Blake3Region[count]
    uint64_t count;    // at least one
    uint64_t values;   // address of 32 bytes for each group, scratch memory; a multiple of 16
};

// A region without bytes has a chunk, too.
DUMONT_HD uint64_t blake3_chunk_count(uint64_t size) {
    return size == 0 ? 1 : (size + kBlake3Chunk - 1) / kBlake3Chunk;
}

DUMONT_HD uint64_t blake3_group_count(uint64_t size) {
    return (blake3_chunk_count(size) + kBlake3Group - 1) / kBlake3Group;
}

}  // namespace dumont
