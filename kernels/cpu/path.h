// Declarations shared by the sources that are compiled once per instruction set. DUMONT_PATH names the namespace.
//
// These sources use nothing from the standard library but memcpy and memset: an inline function of a std:: header
// would be emitted for AVX-512 and might then be the copy that the linker keeps for every caller.
#pragma once

#include <string.h>

#include "kernels.h"

#if !defined(DUMONT_PATH)
#error "compile this source through CMakeLists.txt, which defines DUMONT_PATH"
#endif

namespace dumont {
namespace DUMONT_PATH {

extern const Kernels kernels;

bool decode_huff0(const uint8_t* block, uint32_t size, uint8_t* out, uint32_t symbols, uint64_t* tables);
void encode_streams(const uint8_t* source, uint32_t symbols, const CodeTable& codes, uint8_t* out, uint32_t* sizes);
void count_bytes(const uint8_t* bytes, size_t size, uint32_t* counts, uint16_t* pairs);
void join_planes(const uint8_t* const* planes, uint32_t plane_count, bool moves_sign, bool past_caches, uint8_t* out,
                 size_t elements);
void split_planes(const uint8_t* source, size_t elements, uint32_t plane_count, bool moves_sign,
                  uint8_t* const* planes);
void compress_blake3(const Blake3Node* nodes, size_t count);

// One 8-byte load or store, at any address.
[[maybe_unused]] static inline uint64_t load_word(const uint8_t* bytes) {
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

[[maybe_unused]] static inline void store_word(uint8_t* bytes, uint64_t word) {
    memcpy(bytes, &word, sizeof word);
}

}  // namespace DUMONT_PATH
}  // namespace dumont
