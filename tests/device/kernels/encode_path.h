// Chunks through the encode kernels, on the PTX machine: the launches of launches.py.
#pragma once

#include <algorithm>
#include <deque>
#include <stdexcept>
#include <string>
#include <vector>

#include "cases.h"
#include "device_memory.h"
#include "device_tables.h"
#include "machine_abi.h"
#include "streams.h"
#include "zipnn_job.h"

namespace dumont::test {

inline uint64_t address_of(const uint8_t* memory) {
    return reinterpret_cast<uintptr_t>(memory);
}

template <class... A>
void launch_encoder(const char* kernel, unsigned grid, unsigned shared, A... arguments) {
    if (machine::launch(kernel, grid, kEncodeThreads, shared, arguments...)) throw std::runtime_error(machine_error());
}

inline void check_unwritten(const uint8_t* begin, const uint8_t* end) {
    for (; begin != end; ++begin) {
        if (*begin != kCanary) throw std::runtime_error("a kernel wrote outside the stream");
    }
}

// A chunk to encode; `shift` moves it in memory.
struct Input {
    const Bytes* original;
    const DtypeName* dtype;
    uint32_t block_log2;
    uint64_t shift;
};

// A chunk in the emulated device's memory. The stream's room is what encode_slot.py gives it at least.
struct Resident {
    Resident(const Input& input, const LaunchSetting& setting)
        : blocks((input.original->size() + (1ull << input.block_log2) - 1) >> input.block_log2),
          entries(input.dtype->bytes * blocks),
          room(kHeaderSize + 9 * entries + input.original->size()),
          source(input.shift + input.original->size()),
          out(setting.misplace + room),
          plans(entries * sizeof(PlanePlan)),
          stream(out.data() + setting.misplace) {
        std::copy(input.original->begin(), input.original->end(), source.data() + input.shift);
        std::memset(plans.data(), static_cast<int>(setting.fill), entries * sizeof(PlanePlan));
    }

    EncodeJob describe(const Input& input) {
        EncodeJob job;
        const int64_t planes = dumont_zipnn_encode_job(input.dtype->dtype, input.original->size(), input.block_log2,
                                                       address_of(source.data() + input.shift), address_of(stream),
                                                       address_of(plans.data()), &job);
        if (planes != static_cast<int64_t>(entries)) throw std::runtime_error("another number of planes");
        return job;
    }

    // The stream that the device has written, with its header.
    Bytes collect(const Input& input, uint64_t size) {
        for (const Memory* memory : {&source, &out, &plans}) memory->check_canaries();
        if (size < kHeaderSize || size > room) throw std::runtime_error("a size that has no room: " + std::to_string(size));
        check_unwritten(out.data(), stream + kHeaderSize);
        check_unwritten(stream + size, stream + room);
        dumont_zipnn_header(input.dtype->dtype, input.original->size(), input.block_log2, size, stream);
        return Bytes(stream, stream + size);
    }

    uint64_t blocks, entries, room;
    Memory source, out, plans;
    uint8_t* stream;
};

// As encode_slot.py does it, but any number of chunks at once.
inline std::vector<Bytes> encode_on_device(const std::vector<Input>& inputs, const LaunchSetting& setting) {
    std::deque<Resident> chunks;  // memory does not move
    Memory jobs(inputs.size() * sizeof(EncodeJob));
    Memory sizes(inputs.size() * sizeof(uint64_t));
    uint64_t blocks = 0, entries = 0;
    uint32_t planes = 0;
    for (const Input& input : inputs) {
        Resident& chunk = chunks.emplace_back(input, setting);
        const EncodeJob job = chunk.describe(input);
        std::memcpy(jobs.data() + (chunks.size() - 1) * sizeof job, &job, sizeof job);
        blocks += chunk.blocks;
        entries += chunk.entries;
        planes = std::max(planes, job.planes);
    }
    machine_set_order(setting.order);
    machine_set_fill(setting.fill);
    const auto* first_job = reinterpret_cast<const EncodeJob*>(jobs.data());
    const auto* size = reinterpret_cast<const uint64_t*>(sizes.data());
    launch_encoder("zipnn_plan", static_cast<unsigned>(blocks), planes * kPlanMemory, first_job);
    launch_encoder("zipnn_layout", static_cast<unsigned>(inputs.size()), 0, first_job, size);
    launch_encoder("zipnn_write", static_cast<unsigned>(entries), 0, first_job);
    for (const Memory* memory : {&jobs, &sizes}) memory->check_canaries();
    std::vector<Bytes> streams;
    for (size_t i = 0; i < inputs.size(); ++i) streams.push_back(chunks[i].collect(inputs[i], size[i]));
    return streams;
}

}  // namespace dumont::test
