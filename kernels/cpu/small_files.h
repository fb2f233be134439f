// C ABI: many small files of one directory read in one call.
#pragma once

#include "dumont_cpu.h"

// A file to be read: its `size` bytes go to `out + begin`. The other fields are what the scan found.
struct DumontOldFile {
    uint64_t name;
    uint64_t begin;
    uint64_t size;
    int64_t mtime_ns;
    uint64_t device;
    uint64_t inode;
};

// Why a file cannot be read as it was scanned, if not for an errno.
enum DumontReadProblem : int32_t {
    DUMONT_NOT_REGULAR = -1,
    DUMONT_SHORT = -2,    // the file ended early; the rest of its room in `out` is unchanged
    DUMONT_CHANGED = -3,  // all bytes were read, but the file has changed since the scan
};

// Reads files of the directory open as `directory`; `results` gets 0, an errno or a DumontReadProblem for each.
DUMONT_API void dumont_read_files(int32_t directory, const char* names, uint8_t* out, uint64_t out_size,
                                  const DumontOldFile* files, uint64_t count, int32_t* results);

namespace dumont {

// Reads one file of `directory`; returns what `results` of dumont_read_files gets.
int32_t read_file(int32_t directory, const char* name, uint8_t* out, const DumontOldFile& file);

// Saturates: the format holds 64 bits of nanoseconds, about the years 1677 to 2262.
int64_t to_nanoseconds(int64_t seconds, int64_t nanoseconds);

}  // namespace dumont
