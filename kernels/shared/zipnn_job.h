// A chunk as a device encodes it, and the plan that the device makes for each plane of each block.
//
// The host learns sizes and constants through dumont_layout (kernels/cpu/device_tables.cpp).
#pragma once

#include "tree_description.h"
#include "zipnn.h"

namespace dumont {

struct EncodeJob {
    uint64_t source;  // address of the elements; a multiple of 16
    uint64_t out;     // address of the stream; room for header, tables and all planes raw
    uint64_t plans;   // address of PlanePlan[planes][blocks]
    uint64_t size;    // raw bytes; whole elements
    uint32_t blocks;
    uint32_t block_log2;
    uint32_t planes;
    uint32_t moves_sign;
};
static_assert(sizeof(EncodeJob) == 48, "part of the ABI: dumont_gpu/native/device_tables.py");

enum PlaneKind : uint32_t { kRawPlane = 0, kConstantPlane = 1, kCodedPlane = 2 };

struct PlanePlan {
    uint64_t offset;  // in the stream
    uint32_t kind;
    uint32_t size;  // bytes in the stream
    uint32_t tree_size;
    uint32_t stream_size[kStreams];
    uint8_t tree[kMaxTreeSize + 2];
    uint8_t constant;
    uint32_t codes[256];  // the code in the highest bits, its length in the lowest; 0: the symbol does not occur
};
static_assert(sizeof(PlanePlan) == 1192, "part of the ABI: dumont_gpu/native/device_tables.py");

constexpr uint32_t kPlanMemory = 9280;     // bytes of dynamic shared memory that zipnn_plan takes for each plane
constexpr uint32_t kEncodeThreads = 128;  // in each CTA of zipnn_plan, zipnn_layout and zipnn_write

}  // namespace dumont
