// Pages of a manifest in columns: columns of numbers and text, written from a table and read into one.
//
// Neighbours in a tree look alike, so numbers are stored as differences and paths by what they do not share with the path
// before: zstd then needs few bytes beyond the digests. FORMAT.md, section 6.2, has every column.
#include <string.h>

#include "entry_table.h"

namespace {

constexpr uint64_t kPageSize = 4 << 20;  // about where a page ends
constexpr uint64_t kMaxName = 255;       // as dumont_gpu/format/paths.py
constexpr uint64_t kMaxPath = 32 << 10;
constexpr uint64_t kMaxExtents = 100000;  // as dumont_gpu/format/entries.py
constexpr uint32_t kNone = UINT32_MAX;
constexpr uint64_t kColumnCountSize = 2;
constexpr uint32_t kMaxColumns = 64;  // known or not
constexpr uint64_t kDigestSize = sizeof(DumontPiece::digest);

enum Column : uint32_t {
    PREFIX, SUFFIX, TYPE, MODE, MTIME, SIZE, EXTENTS, GAP, PIECE, CHUNK, AT, REST, DIGEST, TARGET,
    CHANGED, UID, GID,  // optional
    COLUMNS,
};
constexpr uint32_t kFirstOptional = CHANGED;
constexpr const char* kNames[COLUMNS] = {"prefix", "suffix", "type",  "mode", "mtime", "size",   "extents", "gap", "piece",
                                         "chunk",  "at",     "rest", "digest", "target", "changed", "uid",   "gid"};

uint64_t zigzag(uint64_t difference) {
    return difference << 1 ^ (difference >> 63 ? UINT64_MAX : 0);
}

uint64_t unzigzag(uint64_t value) {
    return value >> 1 ^ (value & 1 ? UINT64_MAX : 0);
}

// Offset of the last component of a path; the path of the directory is `result - 1` bytes long, or empty.
uint64_t name_offset(const char* path, uint64_t length) {
    while (length > 0 && path[length - 1] != '/') --length;
    return length;
}

// A column that is being written, or only measured if `out` is null.
struct Sink {
    uint8_t* out = nullptr;
    uint64_t size = 0;
    bool present = true;

    void byte(uint8_t value) {
        if (out) out[size] = value;
        ++size;
    }
    void number(uint64_t value) {
        for (; value >= 128; value >>= 7) byte(static_cast<uint8_t>(value | 128));
        byte(static_cast<uint8_t>(value));
    }
    void bytes(const void* data, uint64_t count) {
        if (out) memcpy(out + size, data, count);
        size += count;
    }
};

struct PageWriter {
    const DumontTable& table;
    uint32_t* numbers;   // of the table's pieces
    uint32_t next;       // the number that the next new piece gets
    Sink columns[COLUMNS];

    void write(uint64_t first, uint64_t count) {
        const char* previous = "";
        uint64_t mtime = 0;
        uint32_t chunk = 0;
        uint64_t chunk_end = 0;
        for (uint64_t i = first; i < first + count; ++i) {
            const DumontEntry& entry = table.entries[i];
            const char* path = table.names + entry.path;
            uint64_t shared = 0;
            while (path[shared] != 0 && path[shared] == previous[shared]) ++shared;
            columns[PREFIX].number(shared);
            columns[SUFFIX].bytes(path + shared, strlen(path + shared) + 1);
            previous = path;
            columns[TYPE].byte(entry.type);
            if (entry.type != DUMONT_HARDLINK) {
                columns[MODE].number(entry.mode);
                columns[MTIME].number(zigzag(static_cast<uint64_t>(entry.mtime_ns) - mtime));
                mtime = static_cast<uint64_t>(entry.mtime_ns);
                write_owner(i);
            }
            if (entry.type == DUMONT_SYMLINK || entry.type == DUMONT_HARDLINK) {
                const char* target = table.names + entry.first;
                columns[TARGET].bytes(target, strlen(target) + 1);
            } else if (entry.type == DUMONT_FILE) {
                columns[CHANGED].byte(entry.flags & DUMONT_ENTRY_CHANGED);
                columns[SIZE].number(entry.size);
                columns[EXTENTS].number(entry.extent_count);
                write_extents(entry, &chunk, &chunk_end);
            }
        }
    }

    void write_owner(uint64_t i) {
        if (table.owners == nullptr) return;
        columns[UID].number(static_cast<uint32_t>(table.owners[i].uid + 1));  // none is UINT32_MAX, and becomes 0
        columns[GID].number(static_cast<uint32_t>(table.owners[i].gid + 1));
    }

    void write_extents(const DumontEntry& entry, uint32_t* chunk, uint64_t* chunk_end) {
        uint64_t end = 0;
        for (uint64_t e = entry.first; e < uint64_t{entry.first} + entry.extent_count; ++e) {
            const DumontExtent& extent = table.extents[e];
            const DumontPiece& piece = table.pieces[extent.piece];
            columns[GAP].number(extent.file_offset - end);
            end = extent.file_offset + piece.length;
            if (numbers[extent.piece] == kNone) numbers[extent.piece] = next;
            if (numbers[extent.piece] != next) {
                columns[PIECE].number(next - numbers[extent.piece]);
                continue;
            }
            ++next;
            columns[PIECE].number(0);
            columns[CHUNK].number(zigzag(uint64_t{piece.chunk} - *chunk));
            columns[AT].number(zigzag(piece.chunk_offset - (piece.chunk == *chunk ? *chunk_end : 0)));
            columns[REST].number(entry.size - end);
            columns[DIGEST].bytes(piece.digest, kDigestSize);
            *chunk = piece.chunk;
            *chunk_end = uint64_t{piece.chunk_offset} + piece.length;
        }
    }
};

// A column that is being read. After a failure every further value is 0; `failed` stays.
struct Source {
    const uint8_t* at = nullptr;
    const uint8_t* end = nullptr;
    bool present = false;
    bool failed = false;

    uint8_t byte() {
        if (at == end) return fail();
        return *at++;
    }
    uint64_t number() {
        uint64_t value = 0;
        for (uint32_t shift = 0; shift < 64; shift += 7) {
            if (at == end) return fail();
            const uint64_t bits = *at & 127;
            if (shift == 63 && bits > 1) return fail();
            if (shift > 0 && *at == 0) return fail();  // a number has one spelling, the shortest
            value |= bits << shift;
            if (*at++ < 128) return value;
        }
        return fail();
    }
    const char* text(uint64_t* length) {
        const void* nul = at == end ? nullptr : memchr(at, 0, static_cast<uint64_t>(end - at));
        *length = 0;
        if (nul == nullptr) {
            fail();
            return "";
        }
        const char* result = reinterpret_cast<const char*>(at);
        at = static_cast<const uint8_t*>(nul) + 1;
        *length = static_cast<uint64_t>(at - 1 - reinterpret_cast<const uint8_t*>(result));
        return result;
    }
    const uint8_t* bytes(uint64_t count) {
        if (static_cast<uint64_t>(end - at) < count) {
            fail();
            return nullptr;
        }
        at += count;
        return at - count;
    }
    uint8_t fail() {
        failed = true;
        at = end;
        return 0;
    }
};

// Finds the known columns of a page, and checks that the columns fill the page.
bool find_columns(const uint8_t* page, uint64_t size, Source* columns) {
    if (size < kColumnCountSize) return false;
    const uint32_t count = page[0] | page[1] << 8;
    if (count > kMaxColumns) return false;
    const uint8_t* rows[kMaxColumns];
    // The table of columns: a name's size, the name, four bytes for the column's size. Column data follows the table.
    uint64_t table_end = kColumnCountSize;
    for (uint32_t i = 0; i < count; ++i) {
        if (size - table_end < 1 || size - table_end - 1 < page[table_end] + uint64_t{4}) return false;
        rows[i] = page + table_end;
        for (uint32_t before = 0; before < i; ++before) {
            if (memcmp(rows[before], rows[i], 1 + uint64_t{rows[i][0]}) == 0) return false;  // the same name twice
        }
        table_end += 1 + page[table_end] + 4;
    }
    uint64_t begin = table_end;
    for (uint32_t i = 0; i < count; ++i) {
        const uint8_t* row = rows[i];
        const uint64_t name_size = row[0];
        const uint8_t* field = row + 1 + name_size;
        const uint64_t column_size = field[0] | field[1] << 8 | field[2] << 16 | uint64_t{field[3]} << 24;
        if (size - begin < column_size) return false;
        for (uint32_t known = 0; known < COLUMNS; ++known) {
            if (strlen(kNames[known]) != name_size || memcmp(kNames[known], row + 1, name_size) != 0) continue;
            columns[known].at = page + begin;
            columns[known].end = page + begin + column_size;
            columns[known].present = true;
        }
        begin += column_size;
    }
    for (uint32_t known = 0; known < kFirstOptional; ++known) {
        if (!columns[known].present) return false;
    }
    return begin == size && columns[UID].present == columns[GID].present;
}

bool is_plain_path(const char* path, uint64_t length) {
    if (length == 0 || length > kMaxPath) return false;
    uint64_t begin = 0;
    for (uint64_t i = 0; i <= length; ++i) {
        if (i < length && path[i] != '/') continue;
        const uint64_t size = i - begin;
        const char* name = path + begin;
        if (size == 0 || size > kMaxName || (size == 1 && name[0] == '.') || (size == 2 && name[0] == '.' && name[1] == '.'))
            return false;
        begin = i + 1;
    }
    return true;
}

struct PageReader {
    DumontTable& table;
    const uint32_t* chunk_sizes;
    uint64_t chunks;
    uint64_t new_pieces;  // that the page may still bring
    Source columns[COLUMNS];
    const char* previous = "";  // path
    uint64_t previous_length = 0;
    uint64_t mtime = 0;
    uint32_t chunk = 0;
    uint64_t chunk_end = 0;

    int64_t read_entry() {
        DumontEntry entry = {};
        char* path = table.names + table.names_size;
        uint64_t length = 0;
        if (const int64_t error = read_path(path, &length)) return error;
        entry.path = static_cast<uint32_t>(table.names_size);
        table.names_size += length + 1;
        entry.type = columns[TYPE].byte();
        if (entry.type > DUMONT_HARDLINK) return DUMONT_PAGE_TYPE;
        DumontOwner owner = {kNone, kNone};
        if (entry.type != DUMONT_HARDLINK) {
            const uint64_t mode = columns[MODE].number();
            if (mode > 07777) return DUMONT_PAGE_MODE;
            entry.mode = static_cast<uint16_t>(mode);
            mtime += unzigzag(columns[MTIME].number());
            entry.mtime_ns = static_cast<int64_t>(mtime);
            if (const int64_t error = read_owner(&owner)) return error;
        }
        if (entry.type == DUMONT_SYMLINK || entry.type == DUMONT_HARDLINK) {
            if (const int64_t error = read_target(&entry)) return error;
        } else if (entry.type == DUMONT_FILE) {
            if (const int64_t error = read_file(&entry)) return error;
        }
        for (const Source& column : columns) {
            if (column.failed) return DUMONT_PAGE_MALFORMED;
        }
        if (table.owners) table.owners[table.entry_count] = owner;
        table.entries[table.entry_count++] = entry;
        previous = path;
        previous_length = length;
        return 0;
    }

    int64_t read_path(char* path, uint64_t* length) {
        const uint64_t shared = columns[PREFIX].number();
        uint64_t rest = 0;
        const char* suffix = columns[SUFFIX].text(&rest);
        if (columns[PREFIX].failed || columns[SUFFIX].failed || shared > previous_length) return DUMONT_PAGE_MALFORMED;
        if (shared < previous_length && rest > 0 && suffix[0] == previous[shared]) return DUMONT_PAGE_MALFORMED;  // one spelling
        memcpy(path, previous, shared);
        memcpy(path + shared, suffix, rest);
        path[shared + rest] = 0;
        *length = shared + rest;
        if (!is_plain_path(path, *length)) return DUMONT_PAGE_PATH;
        // The entry before may stand in an earlier page.
        if (table.entry_count > 0 && strcmp(table.names + table.entries[table.entry_count - 1].path, path) >= 0)
            return DUMONT_PAGE_ORDER;
        if (!has_directory(path, *length)) return DUMONT_PAGE_PARENT;
        return 0;
    }

    bool has_directory(char* path, uint64_t length) {
        const uint64_t name = name_offset(path, length);
        if (name == 0) return true;
        if (name == name_offset(previous, previous_length) && memcmp(path, previous, name) == 0) return true;  // the same
        path[name - 1] = 0;
        const int64_t found = dumont_find_entry(&table, path);
        path[name - 1] = '/';
        return found >= 0 && table.entries[found].type == DUMONT_DIR;
    }

    int64_t read_owner(DumontOwner* owner) {
        if (!columns[UID].present) return 0;
        const uint64_t uid = columns[UID].number();
        const uint64_t gid = columns[GID].number();
        if (uid > kNone || gid > kNone || (uid == 0) != (gid == 0)) return DUMONT_PAGE_OWNER;
        owner->uid = static_cast<uint32_t>(uid) - 1;
        owner->gid = static_cast<uint32_t>(gid) - 1;
        return 0;
    }

    int64_t read_target(DumontEntry* entry) {
        uint64_t length = 0;
        const char* target = columns[TARGET].text(&length);
        if (columns[TARGET].failed) return DUMONT_PAGE_MALFORMED;
        if (entry->type == DUMONT_SYMLINK) {
            if (length == 0 || length > kMaxPath) return DUMONT_PAGE_TARGET;
        } else {
            const int64_t leader = dumont_find_entry(&table, target);
            if (leader < 0 || table.entries[leader].type != DUMONT_FILE) return DUMONT_PAGE_LEADER;
        }
        entry->first = static_cast<uint32_t>(table.names_size);
        memcpy(table.names + table.names_size, target, length + 1);
        table.names_size += length + 1;
        return 0;
    }

    int64_t read_file(DumontEntry* entry) {
        if (columns[CHANGED].present) {
            const uint8_t changed = columns[CHANGED].byte();
            if (changed > 1) return DUMONT_PAGE_CHANGED;
            entry->flags = changed ? DUMONT_ENTRY_CHANGED : 0;
        }
        entry->size = columns[SIZE].number();
        const uint64_t count = columns[EXTENTS].number();
        if (entry->size > INT64_MAX) return DUMONT_PAGE_SIZE;
        if (count > kMaxExtents) return DUMONT_PAGE_EXTENTS;
        entry->first = static_cast<uint32_t>(table.extent_count);
        entry->extent_count = static_cast<uint32_t>(count);
        uint64_t end = 0;
        for (uint64_t i = 0; i < count; ++i) {
            if (const int64_t error = read_extent(*entry, &end)) return error;
        }
        return 0;
    }

    int64_t read_extent(const DumontEntry& entry, uint64_t* end) {
        const uint64_t gap = columns[GAP].number();
        const uint64_t back = columns[PIECE].number();
        if (columns[GAP].failed || columns[PIECE].failed) return DUMONT_PAGE_MALFORMED;
        if (gap >= entry.size - *end) return DUMONT_PAGE_EXTENTS;
        const uint64_t offset = *end + gap;
        if (back > table.piece_count) return DUMONT_PAGE_PIECE;
        const uint64_t number = table.piece_count - back;
        if (back == 0) {
            if (const int64_t error = read_piece(entry.size - offset)) return error;
        }
        const uint64_t length = table.pieces[number].length;
        if (length > entry.size - offset) return DUMONT_PAGE_EXTENTS;
        *end = offset + length;
        table.extents[table.extent_count++] = {offset, static_cast<uint32_t>(number), 0};
        return 0;
    }

    // Reads a new piece, which a file of which `left` bytes are left uses first.
    int64_t read_piece(uint64_t left) {
        if (new_pieces == 0) return DUMONT_PAGE_MALFORMED;
        const uint64_t number = chunk + unzigzag(columns[CHUNK].number());
        const uint64_t at = unzigzag(columns[AT].number()) + (number == chunk ? chunk_end : 0);
        const uint64_t rest = columns[REST].number();
        const uint8_t* digest = columns[DIGEST].bytes(kDigestSize);
        if (columns[CHUNK].failed || columns[AT].failed || columns[REST].failed || digest == nullptr)
            return DUMONT_PAGE_MALFORMED;
        if (rest >= left) return DUMONT_PAGE_EXTENTS;
        const uint64_t length = left - rest;
        if (number >= chunks || at > chunk_sizes[number] || length > chunk_sizes[number] - at) return DUMONT_PAGE_PIECE;
        DumontPiece& piece = table.pieces[table.piece_count++];
        piece.chunk = chunk = static_cast<uint32_t>(number);
        piece.chunk_offset = static_cast<uint32_t>(at);
        piece.length = static_cast<uint32_t>(length);
        memcpy(piece.digest, digest, kDigestSize);
        chunk_end = at + length;
        --new_pieces;
        return 0;
    }

    bool is_used_up() const {
        if (new_pieces != 0) return false;
        for (const Source& column : columns) {
            if (column.failed || column.at != column.end) return false;
        }
        return true;
    }
};

}  // namespace

uint64_t dumont_page_entries(const DumontTable* table, uint64_t first, uint64_t limit) {
    uint64_t size = 0;
    uint64_t count = 0;
    while (count < limit && first + count < table->entry_count && size < kPageSize) {
        const DumontEntry& entry = table->entries[first + count];
        const bool link = entry.type == DUMONT_SYMLINK || entry.type == DUMONT_HARDLINK;
        size += strlen(table->names + entry.path) + 40 + uint64_t{entry.extent_count} * 80;
        if (link) size += strlen(table->names + entry.first);
        ++count;
    }
    return count;
}

uint64_t dumont_write_page(const DumontTable* table, uint64_t first, uint64_t count, uint32_t* numbers, uint32_t first_piece,
                           uint32_t* next, uint8_t* out) {
    PageWriter writer = {*table, numbers, first_piece, {}};
    writer.write(first, count);  // measures
    bool changed = false;
    for (uint64_t i = first; i < first + count; ++i) changed |= (table->entries[i].flags & DUMONT_ENTRY_CHANGED) != 0;
    writer.columns[CHANGED].present = changed;
    writer.columns[UID].present = writer.columns[GID].present = table->owners != nullptr;
    *next = writer.next;
    uint64_t size = kColumnCountSize;
    uint32_t present = 0;
    for (uint32_t i = 0; i < COLUMNS; ++i) {
        if (!writer.columns[i].present) continue;
        size += 1 + strlen(kNames[i]) + 4 + writer.columns[i].size;
        ++present;
    }
    if (out == nullptr) return size;
    uint8_t* row = out;
    *row++ = static_cast<uint8_t>(present);
    *row++ = 0;
    uint8_t* data = out + size;
    for (uint32_t i = COLUMNS; i-- > 0;) {  // the last column ends the page
        if (writer.columns[i].present) data -= writer.columns[i].size;
    }
    PageWriter again = {*table, numbers, first_piece, {}};
    for (uint32_t i = 0; i < COLUMNS; ++i) {
        if (!writer.columns[i].present) continue;
        const uint64_t name_size = strlen(kNames[i]);
        *row++ = static_cast<uint8_t>(name_size);
        memcpy(row, kNames[i], name_size);
        row += name_size;
        for (uint32_t shift = 0; shift < 32; shift += 8) *row++ = static_cast<uint8_t>(writer.columns[i].size >> shift);
        again.columns[i].out = data;
        data += writer.columns[i].size;
    }
    again.write(first, count);
    return size;
}

int64_t dumont_page_needs(const uint8_t* page, uint64_t size, uint64_t entries, DumontPageNeeds* needs) {
    Source columns[COLUMNS];
    if (!find_columns(page, size, columns)) return DUMONT_PAGE_MALFORMED;
    *needs = {};
    needs->names = static_cast<uint64_t>(columns[TARGET].end - columns[TARGET].at);
    needs->owners = columns[UID].present;
    uint64_t length = 0;  // of the path; exact, so that a small page cannot ask for much
    for (uint64_t i = 0; i < entries; ++i) {
        uint64_t rest = 0;
        const uint64_t shared = columns[PREFIX].number();
        columns[SUFFIX].text(&rest);
        if (columns[PREFIX].failed || columns[SUFFIX].failed || shared > length) return DUMONT_PAGE_MALFORMED;
        length = shared + rest;
        if (length > kMaxPath) return DUMONT_PAGE_MALFORMED;
        needs->names += length + 1;
    }
    while (columns[EXTENTS].at != columns[EXTENTS].end) {
        const uint64_t count = columns[EXTENTS].number();
        if (columns[EXTENTS].failed || count > kMaxExtents) return DUMONT_PAGE_MALFORMED;
        needs->extents += count;
    }
    return 0;
}

int64_t dumont_read_page(const uint8_t* page, uint64_t size, uint64_t entries, uint64_t pieces, const uint32_t* chunk_sizes,
                         uint64_t chunks, DumontTable* table, uint64_t* wrong) {
    PageReader reader = {*table, chunk_sizes, chunks, pieces, {}};
    *wrong = 0;
    if (!find_columns(page, size, reader.columns)) return DUMONT_PAGE_MALFORMED;
    for (; *wrong < entries; ++*wrong) {
        if (const int64_t error = reader.read_entry()) return error;
    }
    if (!reader.is_used_up()) return DUMONT_PAGE_MALFORMED;
    return 0;
}
