// A chunk as a device encodes it, and what it decides for each plane of each block.
#pragma once

#include "tree_description.h"
#include "zipnn.h"

namespace dumont {

struct EncodeJob {
    uint64_t source;  // address of the elements; a multiple of 16
    uint64_t out;     // address of the stream: room for it raw, its tables and header
    uint64_t plans;   // address of PlanePlan[planes][blocks]
    uint64_t size;    // bytes of elements; whole ones
    uint32_t blocks;
    uint32_t block_log2;
    uint32_t planes;
    uint32_t moves_sign;
};
static_assert(sizeof(EncodeJob) == 48, "native.py gives this much room for a job");

enum PlaneKind : uint32_t { kRawPlane = 0, kConstantPlane = 1, kCodedPlane = 2 };

struct PlanePlan {
    uint64_t offset;  // in the stream
    uint32_t kind;
    uint32_t size;  // bytes in the stream
    uint32_t tree_size;
    uint32_t stream_size[kStreams];
    uint8_t tree[kMaxTreeSize + 2];
    uint8_t constant;
    uint32_t codes[256];  // value | length << 16
};
static_assert(sizeof(PlanePlan) == 1192, "native.py gives this much room for each plane of each block");

constexpr uint32_t kPlanMemory = 11264;  // shared memory of zipnn_plan for each plane

}  // namespace dumont
