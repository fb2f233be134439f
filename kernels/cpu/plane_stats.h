// Entropy of byte planes: the size that coding a plane would give, and whether coding pays at all.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace dumont {

// Bits per symbol that a Huffman code needs for bytes with these counts; 0 for a constant plane. Corrected for the
// bias of small samples after Miller and Madow, "On the bias of information estimates" (1955).
float estimate_bits(const uint32_t* counts /* [256] */, uint64_t total);

// A quick answer from a sample: true if coding surely saves less than the 5 % that a block must gain.
bool looks_incompressible(const uint8_t* plane, size_t size);

}  // namespace dumont
