// Rows of an entry table by chunk. A million extents are sorted by counting, in the order of their rows.
#include "placed_rows.h"

#include <string.h>

#include <algorithm>

namespace {

constexpr uint32_t kNone = UINT32_MAX;
constexpr uint64_t kDigestSize = 32;
constexpr uint64_t kBatch = 256;  // pieces hashed in one call: their digests stay in the CPU's cache

// Calls `visit` with a row, its extent and its group, for every extent and for every file without extents.
template <typename Visit>
void for_each_placed(const DumontTable& table, uint64_t chunks, uint64_t small_below, const uint8_t* apart, Visit visit) {
    for (uint64_t row = 0; row < table.entry_count; ++row) {
        const DumontEntry& entry = table.entries[row];
        if (entry.type != DUMONT_FILE) continue;
        const bool alone = apart != nullptr && apart[row] != 0;
        if (entry.extent_count == 0) visit(row, kNone, 2 * chunks + (alone || entry.size != 0));
        for (uint32_t i = entry.first; i < entry.first + entry.extent_count; ++i) {
            const DumontPiece& piece = table.pieces[table.extents[i].piece];
            const bool whole = entry.extent_count == 1 && piece.length == entry.size;
            const bool small = whole && !alone && entry.size < small_below;
            visit(row, i, uint64_t{2} * piece.chunk + !small);
        }
    }
}

// Writes the number of each piece of placed rows once, in ascending order; returns how many there are.
uint64_t distinct_pieces(const DumontTable& table, const DumontPlacedRow* placed, uint64_t count, uint32_t* numbers) {
    for (uint64_t i = 0; i < count; ++i) numbers[i] = table.extents[placed[i].extent].piece;
    if (!std::is_sorted(numbers, numbers + count)) std::sort(numbers, numbers + count);
    return static_cast<uint64_t>(std::unique(numbers, numbers + count) - numbers);
}

// Pieces that are hashed together.
struct Batch {
    uint64_t begins[kBatch];
    uint64_t sizes[kBatch];
    uint32_t numbers[kBatch];
    uint64_t count = 0;

    void add(const DumontPiece& piece, uint32_t number) {
        begins[count] = piece.chunk_offset;
        sizes[count] = piece.length;
        numbers[count++] = number;
    }

    // Returns 0; or DUMONT_DAMAGED, and the piece in `wrong`. The batch is empty then.
    int64_t check(const DumontTable& table, const uint8_t* content, uint64_t content_size, uint32_t* wrong) {
        uint8_t digests[kBatch * kDigestSize];
        const uint64_t full = count;
        count = 0;
        if (const int64_t error = dumont_blake3_many(content, content_size, begins, sizes, full, digests)) return error;
        for (uint64_t i = 0; i < full; ++i) {
            if (memcmp(digests + i * kDigestSize, table.pieces[numbers[i]].digest, kDigestSize) == 0) continue;
            *wrong = numbers[i];
            return DUMONT_DAMAGED;
        }
        return 0;
    }
};

}  // namespace

uint64_t dumont_place_rows(const DumontTable* table, uint64_t chunks, uint64_t small_below, const uint8_t* apart,
                           uint64_t* starts, DumontPlacedRow* placed) {
    uint64_t total = 0;
    const uint64_t groups = 2 * chunks + 2;
    memset(starts, 0, (groups + 1) * sizeof *starts);
    for_each_placed(*table, chunks, small_below, apart, [&](uint64_t, uint32_t, uint64_t group) {
        ++starts[group + 1];
        ++total;
    });
    if (placed == nullptr) return total;
    for (uint64_t group = 0; group < groups; ++group) starts[group + 1] += starts[group];
    for_each_placed(*table, chunks, small_below, apart, [&](uint64_t row, uint32_t extent, uint64_t group) {
        placed[starts[group]++] = {static_cast<uint32_t>(row), extent};
    });
    for (uint64_t group = groups; group > 0; --group) starts[group] = starts[group - 1];  // each start was moved to its end
    starts[0] = 0;
    return total;
}

uint64_t dumont_size_in_blocks(const DumontTable* table, uint64_t block) {
    uint64_t size = 0;
    for_each_placed(*table, 0, 0, nullptr, [&](uint64_t, uint32_t extent, uint64_t) {
        if (extent == kNone) return;
        const uint64_t length = table->pieces[table->extents[extent].piece].length;
        size += (length + block - 1) / block * block;
    });
    return size;
}

int64_t dumont_check_pieces(const DumontTable* table, const DumontPlacedRow* placed, uint64_t count, const uint8_t* content,
                            uint64_t content_size, uint64_t below, uint32_t* numbers) {
    const uint64_t distinct = distinct_pieces(*table, placed, count, numbers);
    uint64_t large = 0;
    Batch batch;
    for (uint64_t i = 0; i < distinct; ++i) {
        const uint32_t number = numbers[i];
        const DumontPiece& piece = table->pieces[number];
        if (piece.chunk_offset > content_size || piece.length > content_size - piece.chunk_offset) return DUMONT_ARGUMENT;
        if (piece.length >= below) {
            numbers[large++] = number;
            continue;
        }
        batch.add(piece, number);
        if (batch.count < kBatch) continue;
        if (const int64_t error = batch.check(*table, content, content_size, numbers)) return error;
    }
    if (const int64_t error = batch.check(*table, content, content_size, numbers)) return error;
    return static_cast<int64_t>(large);
}
