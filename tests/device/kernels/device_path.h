// Chunks through the device path: the host lists their blocks, the kernels decode them, here on the PTX machine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "damage.h"
#include "zipnn_blocks.h"

namespace dumont::test {

struct Chunk {
    std::string name;
    Bytes encoded;
    uint64_t original_size;
};

// How a launch is made; no result may depend on it.
struct LaunchSetting {
    unsigned order;     // of the threads, see machine_set_order
    unsigned fill;      // what shared memory starts with
    uint32_t misplace;  // bytes by which outputs miss a multiple of 16
};

struct DeviceBlockResult {
    uint64_t begin;  // in the chunk's original bytes
    uint64_t size;
    unsigned coded;  // planes
    uint32_t status;
};

struct DeviceResult {
    int64_t host;                           // what dumont_zipnn_device_blocks returned; only after 0 there is a rest
    std::vector<DeviceBlockResult> blocks;  // in the order of `begin`
    Bytes out;

    uint32_t worst() const;
};

// Decodes chunks together, with one launch for each number of coded planes. A launch that fails and a write out of bounds
// throw std::runtime_error.
std::vector<DeviceResult> decode_on_device(const std::vector<const Chunk*>& chunks, const LaunchSetting& setting);

// One launch: blocks that all have `coded` coded planes. `status` has a word for each. Throws if it fails.
void launch_blocks(unsigned coded, const std::vector<DeviceBlock>& blocks, const uint8_t* source, uint8_t* output,
                   uint32_t* status);

// What the CPU codec says of the same chunk.
struct HostResult {
    int64_t status;
    Bytes out;
};

HostResult decode_on_host(const Chunk& chunk);

// Says how the device's result contradicts the CPU's; empty if it does not.
std::string contradiction(const HostResult& host, const DeviceResult& device);

// The only reasons to leave a good chunk to the CPU.
bool device_may_refuse(const Chunk& chunk);

}  // namespace dumont::test
