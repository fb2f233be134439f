// Rows of plain small files on their way into chunks: cut, read, stored once where contents are equal; and their hard links.
#include "file_rows.h"

#include <errno.h>
#include <string.h>

#include <algorithm>

#include "small_files.h"

namespace {

// Digests are uniform, so that any 8 of their bytes make a hash.
uint64_t hash(const uint8_t* digest) {
    uint64_t result;
    memcpy(&result, digest, sizeof result);
    return result;
}

const char* name_of(const char* path) {
    const char* slash = strrchr(path, '/');
    return slash == nullptr ? path : slash + 1;
}

// The slot of the piece with this content, or the free slot where it belongs.
uint32_t* find_slot(const DumontPiece* pieces, const uint8_t* digest, uint64_t length, uint32_t* slots, uint64_t slot_count) {
    uint64_t at = hash(digest) & (slot_count - 1);
    for (; slots[at] != 0; at = (at + 1) & (slot_count - 1)) {
        const DumontPiece& piece = pieces[slots[at] - 1];
        if (piece.length == length && memcmp(piece.digest, digest, sizeof piece.digest) == 0) break;
    }
    return slots + at;
}

}  // namespace

uint64_t dumont_link_rows(DumontTable* table, DumontLinkedRow* linked, uint64_t count) {
    DumontEntry* rows = table->entries;
    const char* names = table->names;
    std::sort(linked, linked + count, [=](const DumontLinkedRow& a, const DumontLinkedRow& b) {
        if (a.device != b.device) return a.device < b.device;
        if (a.inode != b.inode) return a.inode < b.inode;
        return strcmp(names + rows[a.row].path, names + rows[b.row].path) < 0;
    });
    uint64_t saved = 0;
    const DumontLinkedRow* leader = nullptr;
    for (const DumontLinkedRow* link = linked; link < linked + count; ++link) {
        DumontEntry& row = rows[link->row];
        if (row.type != DUMONT_FILE) continue;
        if (leader == nullptr || link->device != leader->device || link->inode != leader->inode) {
            leader = link;
            continue;
        }
        saved += row.size;
        row = {0, 0, row.path, rows[leader->row].path, 0, 0, DUMONT_HARDLINK, 0};
        if (table->owners != nullptr) table->owners[link->row] = {UINT32_MAX, UINT32_MAX};
    }
    return saved;
}

uint64_t dumont_cut_rows(const DumontEntry* rows, uint64_t first, uint64_t end, uint64_t max_size, uint64_t max_rows,
                         uint64_t* size) {
    *size = 0;
    uint64_t row = first;
    for (; row < end && row - first < max_rows; ++row) {
        if (rows[row].type != DUMONT_FILE) continue;
        if (rows[row].size > max_size - *size) break;
        *size += rows[row].size;
    }
    return row;
}

uint64_t dumont_read_rows(int32_t directory, uint64_t device, const DumontEntry* rows, const char* names,
                          const uint64_t* inodes, uint64_t count, uint8_t* out, uint64_t out_size, uint64_t begin,
                          uint64_t* begins, uint64_t* sizes, int32_t* results) {
    for (uint64_t i = 0; i < count; ++i) {
        const DumontEntry& row = rows[i];
        begins[i] = begin;
        sizes[i] = 0;
        results[i] = 0;
        if (row.type != DUMONT_FILE || row.size == 0) continue;
        if (row.size > out_size - begin) {
            results[i] = EINVAL;
            continue;
        }
        const DumontOldFile file = {0, begin, row.size, row.mtime_ns, device, inodes[i]};
        results[i] = dumont::read_file(directory, name_of(names + row.path), out + begin, file);
        if (results[i] != 0) continue;
        sizes[i] = row.size;
        begin += row.size;
    }
    return begin;
}

void dumont_index_pieces(const DumontPiece* pieces, uint64_t count, uint32_t* slots, uint64_t slot_count) {
    memset(slots, 0, slot_count * sizeof *slots);
    for (uint64_t i = 0; i < count; ++i) {
        *find_slot(pieces, pieces[i].digest, pieces[i].length, slots, slot_count) = static_cast<uint32_t>(i + 1);
    }
}

uint64_t dumont_share_rows(DumontTable* table, uint64_t first, uint64_t count, uint32_t chunk, uint8_t* raw,
                           const uint64_t* begins, const uint64_t* sizes, const uint8_t* digests, uint32_t* slots,
                           uint64_t slot_count) {
    uint64_t left = 0;
    for (uint64_t i = 0; i < count; ++i) {
        DumontEntry& row = table->entries[first + i];
        if (row.type != DUMONT_FILE || row.size == 0) continue;
        if (sizes[i] == 0) {
            row.type = DUMONT_DROPPED;
            continue;
        }
        const uint8_t* digest = digests + i * sizeof(DumontPiece::digest);
        uint32_t* slot = find_slot(table->pieces, digest, sizes[i], slots, slot_count);
        if (*slot == 0) {
            DumontPiece& piece = table->pieces[table->piece_count++];
            piece = {chunk, static_cast<uint32_t>(left), static_cast<uint32_t>(sizes[i]), {}};
            memcpy(piece.digest, digest, sizeof piece.digest);
            *slot = static_cast<uint32_t>(table->piece_count);
            if (begins[i] != left) memmove(raw + left, raw + begins[i], sizes[i]);
            left += sizes[i];
        }
        row.first = static_cast<uint32_t>(table->extent_count);
        row.extent_count = 1;
        table->extents[table->extent_count++] = {0, *slot - 1, 0};
    }
    return left;
}
