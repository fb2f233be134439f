// C ABI: rows of an entry table become files and directories of a target, many in one call. From Python, every system call
// releases the interpreter lock and takes it again, which costs more than the call itself.
//
// `root` is the open target. Directories are opened from their parents' descriptors without following symlinks, so that a
// directory swapped for a symlink leads to an error, never outside the target. An entry that fails is the caller's: each
// function stops there, and is called again for the entries after it.
#pragma once

#include "placed_rows.h"

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
