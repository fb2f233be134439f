// Whole BLAKE3 digests: the order of chunks and parents. The kernel compresses them.
//
// Pairing neighbours level by level, where an odd last value moves up as it is, builds the tree that BLAKE3 defines.
// Small pieces go up their trees together, so that lanes stay busy; a large piece is cut into subtrees.
#include "../shared/blake3.h"

#include <string.h>

#include "dumont_cpu.h"
#include "kernels.h"

namespace {

using namespace dumont;

constexpr uint64_t kSubtree = 256;  // chunks, a power of two: enough for full lanes, and 30 KB of nodes and values
constexpr uint64_t kSubtreeSize = kSubtree * kBlake3Chunk;
constexpr uint32_t kMostBlocks = kBlake3Chunk / kBlake3Block;
constexpr uint64_t kMostWaiting = 64;  // subtrees without a sibling yet: one for each bit of their number

uint64_t chunks_of(uint64_t size) {
    return size == 0 ? 1 : size / kBlake3Chunk + (size % kBlake3Chunk != 0);
}

Blake3Node chunk(const uint8_t* data, uint64_t size, uint64_t counter, bool root, uint8_t* value) {
    const uint32_t bytes = size < kBlake3Chunk ? static_cast<uint32_t>(size) : kBlake3Chunk;
    const uint8_t end = root ? kChunkEnd | kRoot : kChunkEnd;
    return {data, counter, value, bytes, 0, kChunkStart, end};
}

Blake3Node parent(const uint8_t* children, bool root, uint8_t* value) {
    const uint8_t flags = root ? kParent | kRoot : kParent;
    return {children, 0, value, 2 * kBlake3Value, flags, 0, 0};
}

// Trees that have at most kSubtree chunks together.
class Batch {
public:
    bool has_room(uint64_t chunks) const { return chunks <= kSubtree - chunks_; }

    // Adds a tree over `size` bytes: a whole piece if `root`, or a subtree that begins with a piece's chunk number
    // `first_chunk`. `out` receives the digest, or the chaining value.
    void add(const uint8_t* data, uint64_t size, uint64_t first_chunk, bool root, uint8_t* out) {
        const uint64_t count = chunks_of(size);
        const bool single = count == 1;
        uint8_t* values = values_ + chunks_ * kBlake3Value;
        for (uint64_t i = 0; i < count; ++i) {
            const uint64_t begin = i * kBlake3Chunk;
            uint8_t* value = single ? out : values + i * kBlake3Value;
            nodes_[chunks_ + i] = chunk(data + begin, size - begin, first_chunk + i, single && root, value);
        }
        chunks_ += count;
        if (!single) trees_[tree_count_++] = {values, count, root, out};
    }

    // Computes what was added; the batch is empty then.
    void finish() {
        sort();
        kernels().compress_blake3(sorted_, chunks_);
        while (tree_count_ != 0) go_up();
        chunks_ = 0;
    }

private:
    struct Tree {
        uint8_t* values;  // of its highest level so far
        uint64_t count;
        bool root;
        uint8_t* out;
    };

    // Makes neighbours of chunks with as many blocks, full ones first.
    void sort() {
        uint64_t place[kMostBlocks + 1] = {};
        for (uint64_t i = 0; i < chunks_; ++i) ++place[missing_blocks(nodes_[i]) + 1];
        for (uint32_t missing = 1; missing < kMostBlocks; ++missing) place[missing] += place[missing - 1];
        for (uint64_t i = 0; i < chunks_; ++i) sorted_[place[missing_blocks(nodes_[i])]++] = nodes_[i];
    }

    static uint32_t missing_blocks(const Blake3Node& node) {
        const uint32_t missing = (kBlake3Chunk - node.size) / kBlake3Block;
        return missing < kMostBlocks ? missing : kMostBlocks - 1;  // no bytes take a block, too
    }

    // Pairs the values of every tree, and drops trees that are complete.
    void go_up() {
        uint64_t pairs = 0;
        uint64_t kept = 0;
        for (uint64_t t = 0; t < tree_count_; ++t) {
            const Tree tree = trees_[t];
            const bool top = tree.count == 2;
            for (uint64_t i = 0; i < tree.count / 2; ++i) {
                uint8_t* value = top ? tree.out : tree.values + i * kBlake3Value;
                nodes_[pairs++] = parent(tree.values + 2 * i * kBlake3Value, top && tree.root, value);
            }
            if (!top) trees_[kept++] = tree;
        }
        kernels().compress_blake3(nodes_, pairs);
        for (uint64_t t = 0; t < kept; ++t) {
            Tree& tree = trees_[t];
            const uint64_t half = tree.count / 2;
            if (tree.count % 2 != 0) {
                memcpy(tree.values + half * kBlake3Value, tree.values + 2 * half * kBlake3Value, kBlake3Value);
            }
            tree.count -= half;
        }
        tree_count_ = kept;
    }

    uint64_t chunks_ = 0;
    uint64_t tree_count_ = 0;
    Blake3Node nodes_[kSubtree];
    Blake3Node sorted_[kSubtree];
    uint8_t values_[kSubtree * kBlake3Value];
    Tree trees_[kSubtree / 2];  // of two chunks or more
};

// Replaces the two values before `end` by their parent's.
void merge(uint8_t* end) {
    uint8_t* pair = end - 2 * kBlake3Value;
    const Blake3Node node = parent(pair, false, pair);
    kernels().compress_blake3(&node, 1);
}

// A piece of more than kSubtree chunks; the batch is empty. `waiting` holds the values that have no sibling yet, as in an
// incremental hash: after n subtrees, the value over 2^b of them for each bit b of n, the largest first.
void hash_large(Batch& batch, const uint8_t* data, uint64_t size, uint8_t* out) {
    uint8_t waiting[kMostWaiting * kBlake3Value];
    uint8_t* end = waiting;
    uint64_t subtrees = 0;
    for (; size > kSubtreeSize; size -= kSubtreeSize, data += kSubtreeSize) {
        batch.add(data, kSubtreeSize, subtrees * kSubtree, false, end);
        batch.finish();
        end += kBlake3Value;
        ++subtrees;
        for (uint64_t rest = subtrees; rest % 2 == 0; rest /= 2, end -= kBlake3Value) merge(end);
    }
    batch.add(data, size, subtrees * kSubtree, false, end);
    batch.finish();
    end += kBlake3Value;
    for (; end > waiting + 2 * kBlake3Value; end -= kBlake3Value) merge(end);
    const Blake3Node root = parent(waiting, true, out);
    kernels().compress_blake3(&root, 1);
}

void hash(Batch& batch, const uint8_t* data, uint64_t size, uint8_t* out) {
    const uint64_t chunks = chunks_of(size);
    if (!batch.has_room(chunks)) batch.finish();
    if (chunks <= kSubtree) {
        batch.add(data, size, 0, true, out);
    } else {
        hash_large(batch, data, size, out);
    }
}

}  // namespace

void dumont_blake3(const uint8_t* data, uint64_t size, uint8_t* out) {
    Batch batch;
    hash(batch, data, size, out);
    batch.finish();
}

int64_t dumont_blake3_many(const uint8_t* data, uint64_t data_size, const uint64_t* begins, const uint64_t* sizes,
                           uint64_t count, uint8_t* out) {
    for (uint64_t i = 0; i < count; ++i) {
        if (begins[i] > data_size || sizes[i] > data_size - begins[i]) return DUMONT_ARGUMENT;
    }
    Batch batch;
    for (uint64_t i = 0; i < count; ++i) hash(batch, data + begins[i], sizes[i], out + i * kBlake3Value);
    batch.finish();
    return 0;
}
