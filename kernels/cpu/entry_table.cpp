// Operations on whole tables of tree entries. A table is sorted once, when all entries are known.
#include "entry_table.h"

#include <string.h>

#include <algorithm>

namespace {

// Moves the rows of a column to where `order` says they belong, along the cycles of the permutation; `order` is used up.
void permute(DumontEntry* entries, DumontOwner* owners, uint32_t* order, uint64_t count) {
    for (uint64_t start = 0; start < count; ++start) {
        if (order[start] == start) continue;
        const DumontEntry entry = entries[start];
        const DumontOwner owner = owners ? owners[start] : DumontOwner{};
        uint64_t to = start;
        while (order[to] != start) {
            const uint64_t from = order[to];
            entries[to] = entries[from];
            if (owners) owners[to] = owners[from];
            order[to] = static_cast<uint32_t>(to);
            to = from;
        }
        entries[to] = entry;
        if (owners) owners[to] = owner;
        order[to] = static_cast<uint32_t>(to);
    }
}

}  // namespace

uint64_t dumont_sort_entries(DumontTable* table, uint32_t* order) {
    DumontEntry* entries = table->entries;
    uint64_t count = 0;
    for (uint64_t i = 0; i < table->entry_count; ++i) {
        if (entries[i].type == DUMONT_DROPPED) continue;
        entries[count] = entries[i];
        if (table->owners) table->owners[count] = table->owners[i];
        ++count;
    }
    // strcmp compares unsigned bytes, and a path before every longer path that it begins.
    const char* names = table->names;
    const auto before = [=](uint32_t a, uint32_t b) {
        return strcmp(names + entries[a].path, names + entries[b].path) < 0;
    };
    for (uint64_t i = 0; i < count; ++i) order[i] = static_cast<uint32_t>(i);
    if (!std::is_sorted(order, order + count, before)) {
        std::sort(order, order + count, before);
        permute(entries, table->owners, order, count);
    }
    table->entry_count = count;
    return count;
}

int64_t dumont_find_entry(const DumontTable* table, const char* path) {
    uint64_t low = 0;
    uint64_t high = table->entry_count;
    while (low < high) {
        const uint64_t middle = low + (high - low) / 2;
        const int order = strcmp(table->names + table->entries[middle].path, path);
        if (order == 0) return static_cast<int64_t>(middle);
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return -1;
}

void dumont_find_entries(const DumontTable* table, const char* paths, uint64_t count, int64_t* rows) {
    for (uint64_t i = 0; i < count; ++i) {
        rows[i] = dumont_find_entry(table, paths);
        paths += strlen(paths) + 1;
    }
}

uint64_t dumont_join_paths(const DumontTable* table, uint64_t first, uint64_t count, int32_t slashes, char* out) {
    uint64_t size = 0;
    for (uint64_t i = first; i < first + count; ++i) {
        const DumontEntry& entry = table->entries[i];
        const char* path = table->names + entry.path;
        const uint64_t length = strlen(path);
        const bool slash = slashes != 0 && entry.type == DUMONT_DIR;
        if (out != nullptr) {
            memcpy(out + size, path, length);
            if (slash) out[size + length] = '/';
            out[size + length + slash] = '\n';
        }
        size += length + slash + 1;
    }
    return size;
}
