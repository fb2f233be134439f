// Stands in for the machine where nvcc compiles self_test.cpp: the same kernels and expectations, on a real device.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <new>

namespace dumont::machine {

inline cudaError_t last_error = cudaSuccess;

template <class... A>
int launch(const void* function, unsigned grid_x, unsigned block_x, unsigned shared_bytes, A... arguments) {
    void* addresses[] = {static_cast<void*>(&arguments)..., nullptr};
    const int most = static_cast<int>(shared_bytes);
    last_error = cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
    if (last_error == cudaSuccess) last_error = cudaLaunchKernel(function, grid_x, block_x, addresses, shared_bytes, 0);
    if (last_error == cudaSuccess) last_error = cudaDeviceSynchronize();
    return last_error == cudaSuccess ? 0 : 1;
}

// Memory that both sides reach. Pinned, not managed: a kernel that runs wild then cannot stall the driver's paging, and
// systems without managed memory run the test too.
template <class T>
struct Allocator {
    using value_type = T;

    Allocator() = default;
    template <class U>
    Allocator(const Allocator<U>&) {}

    T* allocate(size_t count) {
        void* memory = nullptr;
        if (cudaMallocHost(&memory, count * sizeof(T)) != cudaSuccess) throw std::bad_alloc();
        return static_cast<T*>(memory);
    }
    void deallocate(T* memory, size_t) { cudaFreeHost(memory); }
    bool operator==(const Allocator&) const { return true; }
    bool operator!=(const Allocator&) const { return false; }
};

}  // namespace dumont::machine

inline const char* machine_error() {
    return cudaGetErrorString(dumont::machine::last_error);
}
