#include "handmade.h"

#include <algorithm>

namespace dumont::test {
namespace {

struct Code {
    uint32_t bits;
    uint32_t length;
};

uint32_t longest_of(const CodeLengths& lengths) {
    return *std::max_element(lengths.begin(), lengths.end());
}

// The codes in Huff0's order: the longest first, then by symbol, counted up from 0.
std::vector<Code> assign_codes(const CodeLengths& lengths) {
    const uint32_t longest = longest_of(lengths);
    std::vector<Code> codes(lengths.size());
    uint32_t cell = 0;
    for (uint32_t length = longest; length > 0; --length) {
        for (size_t symbol = 0; symbol < lengths.size(); ++symbol) {
            if (lengths[symbol] != length) continue;
            codes[symbol] = {cell >> (longest - length), length};
            cell += 1u << (longest - length);
        }
    }
    return codes;
}

// Last symbol first, bits upward, then the end mark.
Bytes encode_stream(const std::vector<Code>& codes, const uint8_t* begin, const uint8_t* end) {
    Bytes stream(1);
    uint32_t used = 0;
    const auto put = [&](uint32_t bits, uint32_t length) {
        for (uint32_t i = 0; i < length; ++i) {
            if (used == 8) {
                stream.push_back(0);
                used = 0;
            }
            stream.back() = static_cast<uint8_t>(stream.back() | (bits >> i & 1) << used++);
        }
    };
    while (end != begin) {
        --end;
        put(codes[*end].bits, codes[*end].length);
    }
    put(1, 1);
    return stream;
}

}  // namespace

CodeLengths random_code(Random& random, uint32_t longest) {
    const uint64_t symbols = 2 + below(random, 1 + below(random, 120));
    const uint64_t shape = below(random, 3);
    CodeLengths leaves = {0};
    for (int tries = 0; leaves.size() < symbols && tries < 1000; ++tries) {
        size_t leaf = below(random, leaves.size());
        if (shape == 0) leaf = leaves.size() - 1;                    // a chain, if it is always the deepest
        if (shape == 1) leaf = std::min_element(leaves.begin(), leaves.end()) - leaves.begin();
        if (leaves[leaf] == longest) leaf = below(random, leaves.size());
        if (leaves[leaf] == longest) continue;
        leaves.push_back(++leaves[leaf]);
    }
    std::shuffle(leaves.begin(), leaves.end(), random);
    // Weight 12, of one bit beside twelve, can only be implied.
    if (longest_of(leaves) == kMaxTableLog) std::iter_swap(std::min_element(leaves.begin(), leaves.end()), leaves.end() - 1);
    CodeLengths lengths;
    for (const uint32_t length : leaves) {  // with symbols in between that do not occur
        while (below(random, 8) == 0 && lengths.size() + leaves.size() < 128) lengths.push_back(0);
        lengths.push_back(length);
    }
    return lengths;
}

CodeLengths stubborn_code(uint64_t number) {
    if (number < 7) return CodeLengths(2u << number, static_cast<uint32_t>(number + 1));
    if (number == 7) {
        CodeLengths threes(7, 3);
        threes.insert(threes.end(), 8, 6);
        return threes;
    }
    if (number == 8) return {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 11};
    CodeLengths long_ones(64, 7);
    long_ones.insert(long_ones.begin(), 1);
    return long_ones;
}

Bytes direct_tree(const CodeLengths& lengths) {
    const uint32_t longest = longest_of(lengths);
    const size_t explicit_weights = lengths.size() - 1;  // the last is implied
    Bytes tree(1 + (explicit_weights + 1) / 2);
    tree[0] = static_cast<uint8_t>(kFirstDirectHeader - 1 + explicit_weights);
    for (size_t symbol = 0; symbol < explicit_weights; ++symbol) {
        const uint32_t weight = lengths[symbol] == 0 ? 0 : longest + 1 - lengths[symbol];
        tree[1 + symbol / 2] = static_cast<uint8_t>(tree[1 + symbol / 2] | weight << (symbol % 2 == 0 ? 4 : 0));
    }
    return tree;
}

Bytes random_symbols(const CodeLengths& lengths, uint64_t count, Random& random) {
    const uint32_t longest = longest_of(lengths);
    Bytes cells;
    for (size_t symbol = 0; symbol < lengths.size(); ++symbol) {
        if (lengths[symbol] != 0) cells.insert(cells.end(), 1u << (longest - lengths[symbol]), static_cast<uint8_t>(symbol));
    }
    Bytes symbols(count);
    for (uint8_t& symbol : symbols) symbol = cells[below(random, cells.size())];
    return symbols;
}

Bytes symbol_runs(const CodeLengths& lengths, uint64_t count, Random& random) {
    // Of those that occur.
    const auto less = [](uint32_t a, uint32_t b) { return a - 1 < b - 1; };
    const auto shortest = std::min_element(lengths.begin(), lengths.end(), less);
    const auto longest = std::max_element(lengths.begin(), lengths.end());
    const auto common = static_cast<uint8_t>(shortest - lengths.begin());
    const auto rare = static_cast<uint8_t>(longest - lengths.begin());
    Bytes symbols;
    while (symbols.size() < count) {
        symbols.insert(symbols.end(), 1 + below(random, 2000), common);
        symbols.insert(symbols.end(), below(random, 400), rare);
    }
    symbols.resize(count);
    return symbols;
}

Bytes huff0_block(const CodeLengths& lengths, const Bytes& symbols) {
    const std::vector<Code> codes = assign_codes(lengths);
    Bytes block = direct_tree(lengths);
    const size_t jump_table = block.size();
    block.resize(jump_table + kJumpTableSize);
    const size_t segment = (symbols.size() + 3) / 4;
    for (uint32_t i = 0; i < kStreams; ++i) {
        const uint8_t* begin = symbols.data() + i * segment;
        const Bytes stream = encode_stream(codes, begin, i < 3 ? begin + segment : symbols.data() + symbols.size());
        if (i < 3) {
            block[jump_table + 2 * i] = static_cast<uint8_t>(stream.size());
            block[jump_table + 2 * i + 1] = static_cast<uint8_t>(stream.size() >> 8);
        }
        block.insert(block.end(), stream.begin(), stream.end());
    }
    return block;
}

}  // namespace dumont::test
