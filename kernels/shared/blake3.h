// BLAKE3's compression function, for one input or for many in the lanes of vectors.
//
// A digest is the root of a binary tree. The leaves are chunks of 1 KiB, whose blocks of 64 bytes are compressed one
// after another; a parent compresses one block, the chaining values of its two children. Only the plain hash mode is
// here: no key, no context, 32 bytes of output. Names and numbers are those of the paper (O'Connor, Aumasson, Neves,
// Wilcox-O'Hearn: "BLAKE3: one function, fast everywhere", section 2).
#pragma once

#include "portable.h"

namespace dumont {

constexpr uint32_t kBlake3Block = 64;    // bytes
constexpr uint32_t kBlake3Chunk = 1024;  // bytes
constexpr uint32_t kBlake3Value = 32;    // bytes of a chaining value, and of a digest
constexpr uint32_t kBlake3Rounds = 7;

enum Blake3Flags : uint32_t {
    kChunkStart = 1,  // the first block of a chunk
    kChunkEnd = 2,    // the last block of a chunk
    kParent = 4,
    kRoot = 8,  // the last block of the whole tree
};

struct Blake3Order {
    uint8_t word[kBlake3Rounds][16];
};

// Which word of the message stands where in each round: every round permutes the order of the round before.
DUMONT_HD constexpr Blake3Order blake3_order() {
    constexpr uint8_t kPermutation[16] = {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8};
    Blake3Order order{};
    for (uint8_t i = 0; i < 16; ++i) order.word[0][i] = i;
    for (uint32_t round = 1; round < kBlake3Rounds; ++round) {
        for (uint32_t i = 0; i < 16; ++i) order.word[round][i] = order.word[round - 1][kPermutation[i]];
    }
    return order;
}

// A template argument makes the number a constant, so that message and state can live in registers.
template <uint32_t round, uint32_t place>
static constexpr uint32_t kBlake3Word = blake3_order().word[round][place];

// Word `i` of the initial chaining value, which is SHA-256's; the first four also are the third row of every state.
DUMONT_HD constexpr uint32_t blake3_start(uint32_t i) {
    constexpr uint32_t kStart[8] = {0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
                                    0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19};
    return kStart[i];
}

template <uint32_t bits>
DUMONT_HD uint32_t rotate_right(uint32_t word) {
    return word >> bits | word << (32 - bits);
}

// The quarter-round: mixes column `i` of the state, or from 4 on diagonal `i` - 4, with two words of the message.
template <uint32_t round, uint32_t i, class Word>
DUMONT_HD void blake3_mix(Word* state, const Word* message) {
    constexpr uint32_t kShift = i / 4;
    Word& a = state[i % 4];
    Word& b = state[4 + (i + kShift) % 4];
    Word& c = state[8 + (i + 2 * kShift) % 4];
    Word& d = state[12 + (i + 3 * kShift) % 4];
    a = a + b + message[kBlake3Word<round, 2 * i>];
    d = rotate_right<16>(d ^ a);
    c = c + d;
    b = rotate_right<12>(b ^ c);
    a = a + b + message[kBlake3Word<round, 2 * i + 1>];
    d = rotate_right<8>(d ^ a);
    c = c + d;
    b = rotate_right<7>(b ^ c);
}

template <uint32_t round, class Word>
DUMONT_HD void blake3_rounds(Word* state, const Word* message) {
    blake3_mix<round, 0>(state, message);
    blake3_mix<round, 1>(state, message);
    blake3_mix<round, 2>(state, message);
    blake3_mix<round, 3>(state, message);
    blake3_mix<round, 4>(state, message);
    blake3_mix<round, 5>(state, message);
    blake3_mix<round, 6>(state, message);
    blake3_mix<round, 7>(state, message);
    if constexpr (round + 1 < kBlake3Rounds) blake3_rounds<round + 1>(state, message);
}

// What a block is, beside its message.
template <class Word>
struct Blake3Block {
    Word counter_low, counter_high;  // the chunk's number in its input; 0 for a parent
    Word size;                       // bytes; zeros fill up the message
    Word flags;
};

// Compresses one block into the chaining value.
template <class Word>
DUMONT_HD void blake3_compress(Word* value /* [8] */, const Word* message /* [16] */, const Blake3Block<Word>& block) {
    Word state[16];
    for (uint32_t i = 0; i < 8; ++i) state[i] = value[i];
    for (uint32_t i = 0; i < 4; ++i) state[8 + i] = Word{} + blake3_start(i);
    state[12] = block.counter_low;
    state[13] = block.counter_high;
    state[14] = block.size;
    state[15] = block.flags;
    blake3_rounds<0>(state, message);
    for (uint32_t i = 0; i < 8; ++i) value[i] = state[i] ^ state[i + 8];
}

}  // namespace dumont
