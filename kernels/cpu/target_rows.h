// C ABI: rows of an entry table become files and directories of a target, many in one call. From Python, every system call
// releases the interpreter lock and takes it again, which costs more than the call itself.
//
// `root` is the open target. Directories are opened from their parents' descriptors without following symlinks, so that a
// directory swapped for a symlink leads to an error, never outside the target. An entry that fails is the caller's: each
// function stops there, and is called again for the entries after it.
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

// Creates placed rows, each a whole file, with their bytes in the decoded chunk `content`; nothing may exist under their
// names. Bits of modes that `mode_mask` lacks are not set. Returns how many were finished before the first failure, and the
// errno of that failure in `error` (0: none failed). A file that failed does not exist.
DUMONT_API uint64_t dumont_create_files(int32_t root, const DumontTable* table, const DumontPlacedRow* placed, uint64_t count,
                                        const uint8_t* content, uint64_t content_size, uint32_t mode_mask, int32_t* error);

// Creates the directories among the rows from `first` on, in path order, accessible only to their owner. Returns the row
// that failed, and its errno in `error`; or the number of rows, and 0.
DUMONT_API uint64_t dumont_make_directories(int32_t root, const DumontTable* table, uint64_t first, int32_t* error);

// Sets times and modes of the directories among the rows before `end`, the last row first: a directory comes after its
// content, as its mode may forbid to search it. Returns the row that failed, and its errno in `error`; or 0, and 0.
DUMONT_API uint64_t dumont_finish_directories(int32_t root, const DumontTable* table, uint64_t end, uint32_t mode_mask,
                                              int32_t* error);
