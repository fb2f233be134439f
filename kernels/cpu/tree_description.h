// Writes the tree description of a Huff0 block.
#pragma once

#include "huffman_code.h"

namespace dumont {

constexpr uint32_t kMaxTreeSize = 129;  // a header byte and 128 bytes: 256 nibbles, or at most 127 bytes of FSE

// Returns the description's size, or 0 if this code cannot be described.
uint32_t write_tree(const HuffmanCode& code, uint8_t* out /* [kMaxTreeSize] */);

}  // namespace dumont
