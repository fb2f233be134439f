// Chooses a Huffman code for a block: lengths of at most 11 bits, canonical in Huff0's order.
#pragma once

#include "kernels.h"

namespace dumont {

struct HuffmanCode {
    uint8_t length[256];    // bits; 0: the symbol does not occur
    uint32_t table_log;     // longest length
    uint32_t last_symbol;   // the largest symbol that occurs
    uint64_t payload_bits;  // all symbols together
};

// Builds a complete code for `counts`, of which at least two are not 0.
void choose_lengths(const uint32_t* counts /* [256] */, HuffmanCode& code);

// Fills the encoder's table; a symbol that does not occur gets 0.
void assign_codes(const HuffmanCode& code, CodeTable& codes);

}  // namespace dumont
