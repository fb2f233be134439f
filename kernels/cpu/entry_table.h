// C ABI: tree entries as columns, and the pages of a manifest in columns (FORMAT.md, section 6.2). A million entries are
// read, checked, sorted and written here without an object for each.
#pragma once

#include "dumont_cpu.h"

enum DumontEntryType : uint8_t {
    DUMONT_FILE = 0,
    DUMONT_DIR = 1,
    DUMONT_SYMLINK = 2,
    DUMONT_HARDLINK = 3,
    DUMONT_DROPPED = 255,  // a row that is no entry any more
};

enum DumontEntryFlag : uint8_t {
    DUMONT_ENTRY_CHANGED = 1,  // the file changed while it was packed
};

struct DumontEntry {
    int64_t mtime_ns;
    uint64_t size;          // of a file; otherwise 0
    uint32_t path;          // offset in `names`
    uint32_t first;         // of a file: the index of its first extent; of a link: the offset of its target in `names`
    uint32_t extent_count;  // of a file; otherwise 0
    uint16_t mode;
    uint8_t type;
    uint8_t flags;
};

// Where in a file a piece belongs.
struct DumontExtent {
    uint64_t file_offset;
    uint32_t piece;
    uint32_t reserved;
};

// A run of bytes of one chunk, which several extents may share.
struct DumontPiece {
    uint32_t chunk;
    uint32_t chunk_offset;
    uint32_t length;
    uint8_t digest[32];
};

// No owner: both are UINT32_MAX.
struct DumontOwner {
    uint32_t uid;
    uint32_t gid;
};

// The columns of a table. Counts say how much is in use; the caller makes room.
struct DumontTable {
    DumontEntry* entries;
    uint64_t entry_count;
    char* names;  // paths and targets of links, each with a NUL
    uint64_t names_size;
    DumontExtent* extents;
    uint64_t extent_count;
    DumontPiece* pieces;
    uint64_t piece_count;
    DumontOwner* owners;  // one per entry, or null if no entry has an owner
};

// Brings the entries into the byte order of their paths and leaves out the dropped ones; `order` has room for an index per
// entry. Returns how many entries are left.
DUMONT_API uint64_t dumont_sort_entries(DumontTable* table, uint32_t* order);

// Returns the index of the entry with this path among sorted entries, or -1.
DUMONT_API int64_t dumont_find_entry(const DumontTable* table, const char* path);

// Finds the entries with `count` paths, which follow each other in `paths`, each with a NUL: writes an index or -1 for each.
DUMONT_API void dumont_find_entries(const DumontTable* table, const char* paths, uint64_t count, int64_t* rows);

// Writes the paths of `count` entries from `first` on, each followed by a line feed, with a slash after directories if
// `slashes`. Returns the bytes written; without `out`, the bytes needed.
DUMONT_API uint64_t dumont_join_paths(const DumontTable* table, uint64_t first, uint64_t count, int32_t slashes, char* out);

// Chooses the entries of the next page: from `first` on, at most `limit` of them and about 4 MiB. Returns their number.
DUMONT_API uint64_t dumont_page_entries(const DumontTable* table, uint64_t first, uint64_t limit);

// Writes entries `first` to `first + count` of a sorted table as a page. `numbers` has a number for each piece of the table,
// UINT32_MAX at first; pieces get numbers in the order of first use, from `*next` on, which is raised.
// Returns the page's size; without `out`, only that, and the pieces get their numbers.
DUMONT_API uint64_t dumont_write_page(const DumontTable* table, uint64_t first, uint64_t count, uint32_t* numbers,
                                      uint32_t first_piece, uint32_t* next, uint8_t* out);

// What a page adds to a table.
struct DumontPageNeeds {
    uint64_t names;    // bytes
    uint64_t extents;  // items
    uint64_t owners;   // 1 if entries have owners
};

// What is wrong with a page.
enum DumontPageError : int64_t {
    DUMONT_PAGE_MALFORMED = -1,   // columns overlap, end early, are missing or too long
    DUMONT_PAGE_PATH = -2,        // not a plain relative path
    DUMONT_PAGE_ORDER = -3,       // twice, or not in path order
    DUMONT_PAGE_PARENT = -4,      // its directory is no earlier entry
    DUMONT_PAGE_TYPE = -5,
    DUMONT_PAGE_MODE = -6,
    DUMONT_PAGE_SIZE = -7,
    DUMONT_PAGE_EXTENTS = -8,     // too many, overlap, or leave the file
    DUMONT_PAGE_PIECE = -9,       // a piece that is not there yet, or leaves its chunk
    DUMONT_PAGE_TARGET = -10,     // a symlink without a usable target
    DUMONT_PAGE_LEADER = -11,     // a hard link to something that is no earlier file
    DUMONT_PAGE_OWNER = -12,
    DUMONT_PAGE_CHANGED = -13,
};

// Looks through a page; returns 0 or DUMONT_PAGE_MALFORMED. Takes no memory, whatever the page declares.
DUMONT_API int64_t dumont_page_needs(const uint8_t* page, uint64_t size, uint64_t entries, DumontPageNeeds* needs);

// Appends a page of `entries` entries and `pieces` new pieces to a table that has room for them, and checks every rule of
// the format. `chunk_sizes`: the raw bytes of each chunk. Returns 0 or a DumontPageError; then `wrong` is the entry's number
// within the page.
DUMONT_API int64_t dumont_read_page(const uint8_t* page, uint64_t size, uint64_t entries, uint64_t pieces,
                                    const uint32_t* chunk_sizes, uint64_t chunks, DumontTable* table, uint64_t* wrong);
