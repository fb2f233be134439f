// Compresses nodes of BLAKE3 trees, many of them side by side.
//
// Work:   one thread; a node a lane, 16 lanes with AVX-512, 8 with AVX2, otherwise 4. Nodes side by side may belong to
//         different trees. A lane waits for the longest of them, so neighbours should be alike in size.
// Bytes:  reads each byte of the nodes once, writes 32 a node.
// Bound:  instructions: 784 additions, exclusive ors and rotations for a block in every lane, and the transposition of
//         messages. A single node is bound by the latency of that chain instead.
// Format: kernels/shared/blake3.h.
// Oracle: the blake3 package (tests/unit/test_blake3.py).
#include "../shared/blake3.h"
#include "path.h"

namespace dumont {
namespace DUMONT_PATH {

namespace {

#if defined(__AVX512F__)
constexpr uint32_t kMostLanes = 16;
#elif defined(__AVX2__)
constexpr uint32_t kMostLanes = 8;
#else
constexpr uint32_t kMostLanes = 4;
#endif

constexpr uint32_t kSection = 4;  // words of 128 bits: shuffles within sections are the cheapest

// Bytes ahead. Sixteen inputs are more than the hardware follows: a quarter faster where data comes from memory.
constexpr uint32_t kPrefetch = 256;

// Wide vectors take twice as long for a block: a few nodes are faster in narrow ones.
constexpr uint32_t kFewLanes = kMostLanes == kSection ? kSection : kMostLanes / 2;

template <class Element, uint32_t bytes>
struct VectorOf {
    typedef Element type __attribute__((vector_size(bytes)));
};

template <uint32_t lanes>
using Vector = typename VectorOf<uint32_t, 4 * lanes>::type;

// Lane i of the result is lane from[i] of `low` and `high` together.
template <uint32_t lanes>
static inline Vector<lanes> shuffle(Vector<lanes> low, Vector<lanes> high, Vector<lanes> from) {
#if defined(__clang__)
    Vector<lanes> result;
    for (uint32_t i = 0; i < lanes; ++i) result[i] = from[i] < lanes ? low[from[i]] : high[from[i] - lanes];
    return result;
#else
    return __builtin_shuffle(low, high, from);
#endif
}

// One word of each lane's state or message.
template <uint32_t lanes>
struct Words {
    Vector<lanes> vector;

    friend Words operator+(Words a, Words b) { return {a.vector + b.vector}; }
    friend Words operator+(Words a, uint32_t b) { return {a.vector + b}; }
    friend Words operator^(Words a, Words b) { return {a.vector ^ b.vector}; }
};

// Byte shuffles rotate by whole bytes in one instruction, where there is no instruction for every rotation.
#if (defined(__SSSE3__) || defined(__aarch64__)) && !defined(__AVX512F__) && !defined(__clang__)
constexpr bool kShufflesBytes = true;
#else
constexpr bool kShufflesBytes = false;
#endif

template <uint32_t bits, uint32_t lanes>
static inline Words<lanes> rotate_right(Words<lanes> words) {
#if !defined(__clang__)
    if constexpr (kShufflesBytes && bits % 8 == 0) {
        using Bytes = typename VectorOf<uint8_t, 4 * lanes>::type;
        Bytes from{};
        for (uint32_t i = 0; i < 4 * lanes; ++i) from[i] = static_cast<uint8_t>(i / 4 * 4 + (i + bits / 8) % 4);
        return {reinterpret_cast<Vector<lanes>>(__builtin_shuffle(reinterpret_cast<Bytes>(words.vector), from))};
    }
#endif
    return {words.vector >> bits | words.vector << (32 - bits)};
}

// One load, at any address: compilers make two of a memcpy, through memory.
template <uint32_t lanes>
static inline Words<lanes> load(const void* words) {
    typedef Vector<lanes> Unaligned __attribute__((aligned(1), may_alias));
    return {*static_cast<const Unaligned*>(words)};
}

// Exchanges blocks of `width` words between rows i and i + width, where they are on the wrong side of the diagonal, and
// goes on with twice the width.
template <uint32_t lanes, uint32_t width>
static inline void exchange_blocks(Vector<lanes>* rows) {
    Vector<lanes> upper{}, lower{};
    for (uint32_t i = 0; i < lanes; ++i) {
        upper[i] = i & width ? i - width + lanes : i;
        lower[i] = i & width ? i + lanes : i + width;
    }
    for (uint32_t block = 0; block < lanes; block += 2 * width) {
        for (uint32_t i = block; i < block + width; ++i) {
            const Vector<lanes> exchanged = shuffle<lanes>(rows[i], rows[i + width], upper);
            rows[i + width] = shuffle<lanes>(rows[i], rows[i + width], lower);
            rows[i] = exchanged;
        }
    }
    if constexpr (2 * width < lanes) exchange_blocks<lanes, 2 * width>(rows);
}

// Replaces word j of row i by word i of row j.
template <uint32_t lanes>
static inline void transpose(Vector<lanes>* rows) {
    // Sections first, by interleaving rows two apart, twice.
    Vector<lanes> low{}, high{};
    for (uint32_t i = 0; i < lanes; ++i) {
        low[i] = i / kSection * kSection + i % kSection / 2 + i % 2 * lanes;
        high[i] = low[i] + 2;
    }
    for (uint32_t i = 0; i < lanes; i += kSection) {
        const Vector<lanes> even[2] = {shuffle<lanes>(rows[i], rows[i + 2], low),
                                       shuffle<lanes>(rows[i], rows[i + 2], high)};
        const Vector<lanes> odd[2] = {shuffle<lanes>(rows[i + 1], rows[i + 3], low),
                                      shuffle<lanes>(rows[i + 1], rows[i + 3], high)};
        for (uint32_t half = 0; half < 2; ++half) {
            rows[i + 2 * half] = shuffle<lanes>(even[half], odd[half], low);
            rows[i + 2 * half + 1] = shuffle<lanes>(even[half], odd[half], high);
        }
    }
    if constexpr (lanes > kSection) exchange_blocks<lanes, kSection>(rows);
}

// An input of no bytes has a block, too.
static inline uint32_t blocks_of(const Blake3Node& node) {
    return node.size <= kBlake3Block ? 1 : (node.size + kBlake3Block - 1) / kBlake3Block;
}

static inline uint32_t flags_of(const Blake3Node& node, bool first, bool last) {
    return node.flags | (first ? node.first_flags : 0u) | (last ? node.last_flags : 0u);
}

// Copies a block of less than 64 bytes to `out`, zeros after it.
static inline const uint8_t* fill_up(const uint8_t* block, uint32_t size, uint8_t* out) {
    memset(out, 0, kBlake3Block);
    if (size != 0) memcpy(out, block, size);
    return out;
}

// Up to `lanes` nodes side by side, from their first block to the last block of the longest.
template <uint32_t lanes>
class Lanes {
public:
    Lanes(const Blake3Node* nodes, uint32_t count) : nodes_(nodes), count_(count) {
        for (uint32_t lane = 0; lane < lanes; ++lane) {
            const Blake3Node& node = nodes[lane < count ? lane : 0];
            at_[lane] = node.input;
            blocks_[lane] = blocks_of(node);
            if (blocks_[lane] > blocks_[longest_]) longest_ = lane;
            counter_low_[lane] = static_cast<uint32_t>(node.counter);
            counter_high_[lane] = static_cast<uint32_t>(node.counter >> 32);
        }
        for (uint32_t i = 0; i < 8; ++i) value_[i] = Words<lanes>{} + blake3_start(i);
    }

    void run() {
        while (done_ < blocks_[longest_]) {
            const uint32_t blocks = prepare();
            compress(blocks);
            done_ += blocks;
            for (uint32_t lane = 0; lane < count_; ++lane) {
                if (blocks_[lane] == done_) save(lane);
            }
        }
    }

private:
    // Sets size and flags of each lane's next block; returns how many blocks have the same.
    uint32_t prepare() {
        uint32_t end = blocks_[longest_];
        for (uint32_t lane = 0; lane < lanes; ++lane) {
            const Blake3Node& node = nodes_[lane < count_ ? lane : 0];
            const uint32_t last = blocks_[lane] - 1;
            const uint32_t change = done_ == 0 || done_ == last ? done_ + 1 : last;
            if (done_ <= last && change < end) end = change;
            size_[lane] = done_ == last ? node.size - last * kBlake3Block : kBlake3Block;
            flags_[lane] = flags_of(node, done_ == 0, done_ == last);
            if (size_[lane] < kBlake3Block) at_[lane] = fill_up(at_[lane], size_[lane], partial_[lane]);
        }
        // A lane whose node is done gets something to read.
        for (uint32_t lane = 0; lane < lanes; ++lane) {
            if (done_ >= blocks_[lane]) at_[lane] = at_[longest_];
        }
        return end - done_;
    }

    void compress(uint32_t blocks) {
        using Word = Words<lanes>;
        const Blake3Block<Word> block = {load<lanes>(counter_low_), load<lanes>(counter_high_), load<lanes>(size_),
                                         load<lanes>(flags_)};
        Word value[8];
        for (uint32_t i = 0; i < 8; ++i) value[i] = value_[i];
        for (uint32_t b = 0; b < blocks; ++b) {
            Word message[16];
            for (uint32_t word = 0; word < 16; word += lanes) {
                Vector<lanes> rows[lanes];
                for (uint32_t lane = 0; lane < lanes; ++lane) {
                    if (word == 0) __builtin_prefetch(at_[lane] + b * kBlake3Block + kPrefetch);
                    rows[lane] = load<lanes>(at_[lane] + b * kBlake3Block + 4 * word).vector;
                }
                transpose<lanes>(rows);
                for (uint32_t i = 0; i < lanes; ++i) message[word + i].vector = rows[i];
            }
            blake3_compress(value, message, block);
        }
        for (uint32_t i = 0; i < 8; ++i) value_[i] = value[i];
        for (uint32_t lane = 0; lane < lanes; ++lane) at_[lane] += blocks * kBlake3Block;
    }

    void save(uint32_t lane) {
        uint32_t value[8];
        for (uint32_t i = 0; i < 8; ++i) value[i] = value_[i].vector[lane];
        memcpy(nodes_[lane].value, value, sizeof value);
    }

    const Blake3Node* nodes_;
    uint32_t count_;
    uint32_t longest_ = 0;  // the lane with the most blocks
    uint32_t done_ = 0;     // blocks
    const uint8_t* at_[lanes];
    uint32_t blocks_[lanes];
    uint32_t counter_low_[lanes], counter_high_[lanes], size_[lanes], flags_[lanes];
    Words<lanes> value_[8];
    uint8_t partial_[lanes][kBlake3Block];
};

void compress_one(const Blake3Node& node) {
    uint32_t value[8];
    for (uint32_t i = 0; i < 8; ++i) value[i] = blake3_start(i);
    const uint32_t last = blocks_of(node) - 1;
    for (uint32_t block = 0; block <= last; ++block) {
        const uint8_t* at = node.input + block * kBlake3Block;
        const uint32_t size = block == last ? node.size - last * kBlake3Block : kBlake3Block;
        const uint32_t flags = flags_of(node, block == 0, block == last);
        uint8_t partial[kBlake3Block];
        if (size < kBlake3Block) at = fill_up(at, size, partial);
        uint32_t message[16];
        memcpy(message, at, sizeof message);
        blake3_compress<uint32_t>(value, message, {static_cast<uint32_t>(node.counter),
                                                   static_cast<uint32_t>(node.counter >> 32), size, flags});
    }
    memcpy(node.value, value, sizeof value);
}

}  // namespace

void compress_blake3(const Blake3Node* nodes, size_t count) {
    while (count > kFewLanes) {
        const size_t group = count < kMostLanes ? count : kMostLanes;
        Lanes<kMostLanes>(nodes, static_cast<uint32_t>(group)).run();
        nodes += group;
        count -= group;
    }
    if (count > 1) {
        Lanes<kFewLanes>(nodes, static_cast<uint32_t>(count)).run();
    } else if (count == 1) {
        compress_one(nodes[0]);
    }
}

}  // namespace DUMONT_PATH
}  // namespace dumont
