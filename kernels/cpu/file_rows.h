// C ABI: plain small files as rows of an entry table, from the directory to the chunk. A pack of a million files makes no
// object for any of them, and a call for each directory instead of some for each file.
#pragma once

#include "entry_table.h"

// A name of a file that has several: found again by device and inode.
struct DumontLinkedRow {
    uint64_t device;
    uint64_t inode;
    uint64_t row;
};

// What a scan of a directory found. `dumont_new_listing` makes it, each scan fills it anew; memory is kept for the next.
struct DumontListing {
    DumontEntry* rows;         // plain small files in the byte order of their names; `path` counts from `names_before`
    DumontOwner* owners;       // of rows
    uint64_t* inodes;          // of rows
    char* names;               // paths of rows, each with a NUL
    DumontLinkedRow* linked;   // the rows of files with several names; `row` counts from `rows_before`
    char* others;              // names of all that is no row, in their order, each with a NUL
    uint64_t row_count;
    uint64_t names_size;
    uint64_t linked_count;
    uint64_t others_size;
    uint64_t size;             // of all rows' files
    uint64_t device;           // of all rows' files
};

// Which files become rows.
struct DumontRowRules {
    uint64_t max_size;
    uint64_t max_text_size;    // of files whose names end as text does
    const char* text_endings;  // each with a NUL, and another NUL after the last
    const uint64_t* left_out;  // pairs of device and inode: files that never become rows
    uint64_t left_out_count;
};

// Returns null if memory is short.
DUMONT_API DumontListing* dumont_new_listing(void);
DUMONT_API void dumont_free_listing(DumontListing* listing);

// Lists the directory open as `directory`, whose paths begin with `prefix`. A row is a regular file without holes, no larger than
// the rules say, on one device with the other rows, whose metadata fits a row; not what may be an unfinished file of this
// program.
// Returns 0 or an errno, after which the listing has what was found before.
DUMONT_API int32_t dumont_scan_directory(DumontListing* listing, int32_t directory, const char* prefix,
                                         uint64_t rows_before, uint64_t names_before, const DumontRowRules* rules);

// Turns all but the first name, in path order, of each file among `linked` into hard links; `linked` is sorted. Returns the
// bytes of the files that became hard links.
DUMONT_API uint64_t dumont_link_rows(DumontTable* table, DumontLinkedRow* linked, uint64_t count);

// Chooses the rows of the next chunk: from `first` to less than `end`, as many as fit in `max_size` bytes, and at most
// `max_rows`. Returns where the chunk ends, and the bytes of its files in `size`.
DUMONT_API uint64_t dumont_cut_rows(const DumontEntry* rows, uint64_t first, uint64_t end, uint64_t max_size,
                                    uint64_t max_rows, uint64_t* size);

// Reads the files of `count` rows in the directory open as `directory`, end to end from `out + begin` on; `begins` and `sizes`
// get where each is. A file that cannot be read, or is not as it was scanned, has no size and takes no room. `results`: as of
// dumont_read_files. Returns the end of what was read.
DUMONT_API uint64_t dumont_read_rows(int32_t directory, uint64_t device, const DumontEntry* rows, const char* names,
                                     const uint64_t* inodes, uint64_t count, uint8_t* out, uint64_t out_size,
                                     uint64_t begin, uint64_t* begins, uint64_t* sizes, int32_t* results);

// Pieces by their content: numbers of pieces, counted from 1, in open addressing; 0 is a free slot. `slot_count` is a power of 2.
DUMONT_API void dumont_index_pieces(const DumontPiece* pieces, uint64_t count, uint32_t* slots, uint64_t slot_count);

// Gives each of `count` rows from `first` on, which were read into `raw` of chunk `chunk`, its extent: in a piece of equal content
// if there is one, or in a new piece. Moves the content of new pieces together. Rows that were not read are dropped.
// The table has room for an extent and a piece a row. Returns the bytes that are left in the chunk.
DUMONT_API uint64_t dumont_share_rows(DumontTable* table, uint64_t first, uint64_t count, uint32_t chunk, uint8_t* raw,
                                      const uint64_t* begins, const uint64_t* sizes, const uint8_t* digests,
                                      uint32_t* slots, uint64_t slot_count);
