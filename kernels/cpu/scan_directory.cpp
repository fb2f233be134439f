// Lists a directory: names sorted by their bytes, so that the same tree gives the same snapshot; plain small files as rows.
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <new>

#include "file_rows.h"
#include "small_files.h"

namespace {

constexpr uint64_t kMostBytes = UINT32_MAX;  // of `names` of a table, whose offsets have 32 bits
constexpr uint64_t kMostPath = 4096;         // longer paths are rare, and have limits that the caller checks
constexpr int64_t kMostSeconds = INT64_MAX / 1000000000 - 1;
constexpr uint64_t kReadSize = 64 << 10;
constexpr uint64_t kPage = 4096;  // a hole in a smaller file saves nothing
constexpr mode_t kModeBits = 07777;
constexpr mode_t kUnfinishedMode = 01600;  // UNFINISHED_MODE in dumont_gpu/tree/unfinished.py
constexpr char kPartial[] = ".partial";    // how this program's temporary files end, whose first character is a dot

// An array that grows; after NO_MEMORY it is as before.
template <typename T>
struct Array {
    T* items = nullptr;
    uint64_t count = 0;
    uint64_t capacity = 0;

    bool reserve(uint64_t more) {
        if (more <= capacity - count) return true;
        const uint64_t wanted = std::max(count + more, 2 * capacity);
        T* larger = static_cast<T*>(realloc(static_cast<void*>(items), wanted * sizeof(T)));
        if (larger == nullptr) return false;
        items = larger;
        capacity = wanted;
        return true;
    }
    bool append(const T* source, uint64_t size) {
        if (!reserve(size)) return false;
        memcpy(items + count, source, size * sizeof(T));
        count += size;
        return true;
    }
    bool append(const T& item) { return append(&item, 1); }
};

// As the kernel lays it out for getdents64.
struct DirectoryItem {
    uint64_t inode;
    int64_t offset;
    uint16_t size;
    uint8_t type;
    char name[1];
};

enum ItemType : uint8_t { UNKNOWN = 0, REGULAR = 8 };

struct Listing : DumontListing {
    Array<DumontEntry> row_array;
    Array<DumontOwner> owner_array;
    Array<uint64_t> inode_array;
    Array<char> name_array;
    Array<DumontLinkedRow> linked_array;
    Array<char> other_array;
    Array<char> found;        // of each name in the directory: its type, and the name with its NUL
    Array<uint32_t> order;    // offsets in `found`
    char* buffer = nullptr;   // for the kernel

    void clear() {
        row_array.count = owner_array.count = inode_array.count = linked_array.count = 0;
        name_array.count = other_array.count = found.count = order.count = 0;
        size = 0;
    }
    void publish() {
        rows = row_array.items;
        owners = owner_array.items;
        inodes = inode_array.items;
        names = name_array.items;
        linked = linked_array.items;
        others = other_array.items;
        row_count = row_array.count;
        names_size = name_array.count;
        linked_count = linked_array.count;
        others_size = other_array.count;
    }

    // Returns 0 or an errno. The descriptor's position is shared by its users, of whom nobody else lists.
    int32_t read_names(int directory) {
        if (buffer == nullptr) buffer = static_cast<char*>(malloc(kReadSize));
        if (buffer == nullptr) return ENOMEM;
        if (lseek(directory, 0, SEEK_SET) < 0) return errno;
        while (true) {
            const long size_read = syscall(SYS_getdents64, directory, buffer, kReadSize);
            if (size_read < 0) return errno;
            if (size_read == 0) return 0;
            for (long at = 0; at < size_read;) {
                const char* item = buffer + at;
                uint16_t item_size;
                memcpy(&item_size, item + offsetof(DirectoryItem, size), sizeof item_size);
                at += item_size;
                const char* name = item + offsetof(DirectoryItem, name);
                if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) continue;
                if (found.count > kMostBytes - kReadSize) return EOVERFLOW;
                if (!order.append(static_cast<uint32_t>(found.count))) return ENOMEM;
                if (!found.append(item[offsetof(DirectoryItem, type)])) return ENOMEM;
                if (!found.append(name, strlen(name) + 1)) return ENOMEM;
            }
        }
    }

    // Returns 0 or ENOMEM.
    int32_t add(int directory, const char* prefix, uint64_t prefix_size, const char* item, uint64_t rows_before,
                uint64_t names_before, const DumontRowRules& rules) {
        const uint8_t type = static_cast<uint8_t>(item[0]);
        const char* name = item + 1;
        const uint64_t length = strlen(name);
        struct stat status;
        const bool regular = (type == REGULAR || type == UNKNOWN) &&
                             fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(status.st_mode);
        const bool room = prefix_size + length < kMostPath &&
                          names_before + name_array.count + kMostPath <= kMostBytes && names_before <= kMostBytes;
        if (!regular || !room || !fits(status, name, length, rules) || may_be_unfinished(name, length)) {
            return other_array.append(name, length + 1) ? 0 : ENOMEM;
        }
        const DumontEntry row = {
            dumont::to_nanoseconds(status.st_mtim.tv_sec, status.st_mtim.tv_nsec),
            static_cast<uint64_t>(status.st_size),
            static_cast<uint32_t>(names_before + name_array.count),
            0,
            0,
            static_cast<uint16_t>(status.st_mode & kModeBits),
            DUMONT_FILE,
            0,
        };
        const uint64_t number = rows_before + row_array.count;
        device = status.st_dev;
        if (!row_array.append(row) || !owner_array.append({status.st_uid, status.st_gid}) ||
            !inode_array.append(status.st_ino) || !name_array.append(prefix, prefix_size) ||
            !name_array.append(name, length + 1) ||
            (status.st_nlink > 1 && !linked_array.append({status.st_dev, status.st_ino, number}))) {
            return ENOMEM;
        }
        size += row.size;
        return 0;
    }

    // Whether a row holds all there is to say about a regular file.
    bool fits(const struct stat& status, const char* name, uint64_t length, const DumontRowRules& rules) const {
        const uint64_t file_size = static_cast<uint64_t>(status.st_size);
        if (file_size > rules.max_size && (file_size > rules.max_text_size || !is_text(name, length, rules))) return false;
        if (file_size > kPage && static_cast<uint64_t>(status.st_blocks) * 512 < file_size) return false;
        if ((row_array.count > 0 && status.st_dev != device) || (status.st_mode & kModeBits) == kUnfinishedMode) return false;
        if (status.st_mtim.tv_sec < -kMostSeconds || status.st_mtim.tv_sec > kMostSeconds) return false;
        for (uint64_t i = 0; i < rules.left_out_count; ++i) {
            if (rules.left_out[2 * i] == status.st_dev && rules.left_out[2 * i + 1] == status.st_ino) return false;
        }
        return true;
    }

    static bool is_text(const char* name, uint64_t length, const DumontRowRules& rules) {
        for (const char* end = rules.text_endings; *end != 0; end += strlen(end) + 1) {
            const uint64_t size_of_end = strlen(end);
            if (length >= size_of_end && memcmp(name + length - size_of_end, end, size_of_end) == 0) return true;
        }
        return false;
    }

    static bool may_be_unfinished(const char* name, uint64_t length) {
        constexpr uint64_t size_of_end = sizeof kPartial - 1;
        return name[0] == '.' && length >= size_of_end && strcmp(name + length - size_of_end, kPartial) == 0;
    }
};

}  // namespace

DumontListing* dumont_new_listing(void) {
    void* memory = calloc(1, sizeof(Listing));  // zeros are empty arrays
    return memory == nullptr ? nullptr : new (memory) Listing();
}

void dumont_free_listing(DumontListing* listing) {
    Listing* all = static_cast<Listing*>(listing);
    if (all == nullptr) return;
    free(all->row_array.items);
    free(all->owner_array.items);
    free(all->inode_array.items);
    free(all->name_array.items);
    free(all->linked_array.items);
    free(all->other_array.items);
    free(all->found.items);
    free(all->order.items);
    free(all->buffer);
    free(all);
}

int32_t dumont_scan_directory(DumontListing* listing, int32_t directory, const char* prefix, uint64_t rows_before,
                              uint64_t names_before, const DumontRowRules* rules) {
    Listing& all = *static_cast<Listing*>(listing);
    all.clear();
    all.publish();
    int32_t error = all.read_names(directory);
    const char* found = all.found.items;
    std::sort(all.order.items, all.order.items + all.order.count,
              [=](uint32_t a, uint32_t b) { return strcmp(found + a + 1, found + b + 1) < 0; });
    const uint64_t prefix_size = strlen(prefix);
    for (uint64_t i = 0; i < all.order.count && error != ENOMEM; ++i) {
        const char* item = found + all.order.items[i];
        const int32_t added = all.add(directory, prefix, prefix_size, item, rows_before, names_before, *rules);
        if (added != 0) error = added;
    }
    all.publish();
    return error;
}
