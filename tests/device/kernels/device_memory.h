// Memory that kernels run on: the machine lets none overstep its ends.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>

#include "machine_abi.h"

namespace dumont::test {

constexpr uint8_t kCanary = 0xC7;

// Exactly `size` bytes at a multiple of 256, like device memory. Without AddressSanitizer canaries lie around them.
class Memory {
public:
    explicit Memory(uint64_t size) : size_(size) {
        void* memory = nullptr;
        if (posix_memalign(&memory, kAlignment, size + 2 * around()) != 0) throw std::bad_alloc();
        memory_.reset(static_cast<uint8_t*>(memory));
        std::memset(memory, kCanary, size + 2 * around());
        machine_add_memory(data(), size);
    }
    ~Memory() { machine_remove_memory(data()); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    uint8_t* data() { return memory_.get() + around(); }
    void check_canaries() const {
        for (uint64_t i = 0; i < around(); ++i) {
            if (memory_.get()[i] != kCanary || memory_.get()[around() + size_ + i] != kCanary) {
                throw std::runtime_error("a kernel wrote out of bounds");
            }
        }
    }

private:
    static constexpr uint64_t kAlignment = 256;
    static constexpr uint64_t around() {
#if defined(__SANITIZE_ADDRESS__)
        return 0;
#else
        return kAlignment;
#endif
    }
    struct Free {
        void operator()(void* memory) const { std::free(memory); }
    };
    uint64_t size_;
    std::unique_ptr<uint8_t, Free> memory_;
};

}  // namespace dumont::test
