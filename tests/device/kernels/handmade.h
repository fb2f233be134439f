// Huff0 blocks in codes that no encoder chooses.
#pragma once

#include "damage.h"

namespace dumont::test {

// Code lengths of symbols 0, 1, ... (0: does not occur), complete, at most 129 of them, the last not 0.
using CodeLengths = std::vector<uint32_t>;

// Any shape: from all alike to a chain of one code of each length.
CodeLengths random_code(Random& random, uint32_t longest);

// The tree description of a code, its weights as nibbles.
Bytes direct_tree(const CodeLengths& lengths);

// Symbols as often as the code expects them.
Bytes random_symbols(const CodeLengths& lengths, uint64_t count, Random& random);

// A whole block; `symbols` as parse_streams can divide them.
Bytes huff0_block(const CodeLengths& lengths, const Bytes& symbols);

}  // namespace dumont::test
