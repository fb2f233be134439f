// C ABI: which rows of an entry table have bytes in which chunk, and whether a decoded chunk holds these bytes.
#pragma once

#include "entry_table.h"

// A row, and the extent that lies in the chunk in question; UINT32_MAX for a file without extents.
struct DumontPlacedRow {
    uint32_t row;
    uint32_t extent;
};

// Sorts the extents of a table's files by chunk. Chunk c has two groups, each in path order: 2c are extents that are whole
// files of less than `small_below` bytes, 2c + 1 all others. The groups after the last chunk's are of files without
// extents: 2 * chunks of those without bytes, and one more of the others. Files whose byte in `apart` is set are never in
// the first group of a chunk; `apart` may be null.
// Group g is `placed[starts[g]]` to `placed[starts[g + 1]]`; `starts` has 2 * chunks + 3 numbers. Returns how many rows are
// placed; without `placed`, only that.
DUMONT_API uint64_t dumont_place_rows(const DumontTable* table, uint64_t chunks, uint64_t small_below, const uint8_t* apart,
                                      uint64_t* starts, DumontPlacedRow* placed);

// Returns how many bytes the extents of a table's files take, each rounded up to whole blocks of `block` bytes.
DUMONT_API uint64_t dumont_size_in_blocks(const DumontTable* table, uint64_t block);

// Checks the pieces that placed rows of one chunk have in the decoded chunk `content`: those of less than `below` bytes, by
// BLAKE3, each piece once. `numbers` has room for `count` numbers. Returns how many pieces were not checked, whose numbers
// are then in `numbers`; or DUMONT_DAMAGED, and `numbers[0]` is a piece that does not match its digest; or DUMONT_ARGUMENT if
// a piece leaves the content.
DUMONT_API int64_t dumont_check_pieces(const DumontTable* table, const DumontPlacedRow* placed, uint64_t count,
                                       const uint8_t* content, uint64_t content_size, uint64_t below, uint32_t* numbers);
