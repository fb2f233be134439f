// Huff0 blocks in codes that no encoder chooses.
#pragma once

#include "damage.h"

namespace dumont::test {

// Code lengths of symbols 0, 1, ... (0: does not occur), complete, at most 129 of them, the last not 0.
using CodeLengths = std::vector<uint32_t>;

// Any shape: from all alike to a chain of one code of each length.
CodeLengths random_code(Random& random, uint32_t longest);

// Codes in which a decoder that starts between two codes hardly ever, or never, meets the beginning of one: all lengths
// alike (1 to 7 bits), all multiples of three, a chain, one short code beside many long ones.
constexpr uint64_t kStubbornCodes = 10;
CodeLengths stubborn_code(uint64_t number);

// The tree description of a code, its weights as nibbles.
Bytes direct_tree(const CodeLengths& lengths);

// Symbols as often as the code expects them.
Bytes random_symbols(const CodeLengths& lengths, uint64_t count, Random& random);

// Runs of the symbol with the shortest code and runs of one with the longest: far more, or fewer, symbols in some bits
// than on average.
Bytes symbol_runs(const CodeLengths& lengths, uint64_t count, Random& random);

// A whole block; `symbols` as parse_streams can divide them.
Bytes huff0_block(const CodeLengths& lengths, const Bytes& symbols);

}  // namespace dumont::test
