// Sums over a warp. Called by all of its lanes.
#pragma once

#include "device.h"

namespace dumont {

// Every lane gets the sum.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
    for (uint32_t distance = kWarp / 2; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(kAllLanes, value, static_cast<int>(distance));
    }
    return value;
}

__device__ __forceinline__ uint32_t warp_max(uint32_t value) {
#pragma unroll
    for (uint32_t distance = kWarp / 2; distance > 0; distance /= 2) {
        const uint32_t other = __shfl_xor_sync(kAllLanes, value, static_cast<int>(distance));
        value = other > value ? other : value;
    }
    return value;
}

// The sum of this lane's value and those of the lanes before it.
template <class T>
__device__ __forceinline__ T warp_prefix_sum(T value, uint32_t lane) {
#pragma unroll
    for (uint32_t distance = 1; distance < kWarp; distance *= 2) {
        const T other = __shfl_up_sync(kAllLanes, value, distance);
        if (lane >= distance) value += other;
    }
    return value;
}

}  // namespace dumont
