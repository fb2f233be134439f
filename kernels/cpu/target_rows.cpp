// Rows of an entry table become files and directories of a target.
#include "target_rows.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

namespace {

constexpr int64_t kNanoseconds = 1000000000;
constexpr mode_t kUnfinishedMode = 01600;  // UNFINISHED_MODE in dumont_gpu/tree/unfinished.py
constexpr mode_t kPrivateMode = 0700;      // of a directory until its content is complete
constexpr uint64_t kMaxName = 255;
constexpr uint32_t kNone = UINT32_MAX;
constexpr int kDirectory = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

// The open directory of the entry in work. Entries come in path order, so most share the directory of the entry before, or
// have one inside it.
class Folder {
public:
    explicit Folder(int root) : root_(root), fd_(root) {}
    ~Folder() { close_to_root(); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;

    // Opens the directory of the entry at `path`, and finds the entry's name there. Returns 0 or an errno.
    int open_parent(const char* path, const char** name) {
        const char* slash = strrchr(path, '/');
        *name = slash == nullptr ? path : slash + 1;
        const uint64_t length = slash == nullptr ? 0 : static_cast<uint64_t>(slash - path);
        const bool inside = length >= length_ && memcmp(path, path_, length_) == 0 &&
                            (length == length_ || length_ == 0 || path[length_] == '/');
        if (!inside) close_to_root();
        while (length_ < length) {
            const uint64_t begin = length_ == 0 ? 0 : length_ + 1;
            const void* next = memchr(path + begin, '/', length - begin);
            const uint64_t end = next == nullptr ? length : static_cast<uint64_t>(static_cast<const char*>(next) - path);
            if (const int error = descend(path + begin, end - begin)) {
                close_to_root();
                return error;
            }
            path_ = path;
            length_ = end;
        }
        return 0;
    }

    int fd() const { return fd_; }

private:
    int descend(const char* name, uint64_t size) {
        if (size > kMaxName) return ENAMETOOLONG;
        char component[kMaxName + 1];
        memcpy(component, name, size);
        component[size] = 0;
        const int fd = openat(fd_, component, kDirectory);
        if (fd < 0) return errno;
        if (fd_ != root_) close(fd_);
        fd_ = fd;
        return 0;
    }

    void close_to_root() {
        if (fd_ != root_) close(fd_);
        fd_ = root_;
        length_ = 0;
    }

    const int root_;
    int fd_;
    const char* path_ = "";  // the open directory is its first `length_` bytes
    uint64_t length_ = 0;
};

// Stops at the first error.
bool write_all(int fd, const uint8_t* data, uint64_t size) {
    uint64_t done = 0;
    while (done < size) {
        const ssize_t count = write(fd, data + done, size - done);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return false;
        done += static_cast<uint64_t>(count);
    }
    return true;
}

timespec to_timespec(int64_t nanoseconds) {
    int64_t seconds = nanoseconds / kNanoseconds;
    int64_t rest = nanoseconds % kNanoseconds;
    if (rest < 0) {
        rest += kNanoseconds;
        --seconds;
    }
    return {static_cast<time_t>(seconds), static_cast<long>(rest)};
}

// The mode comes last: until then a file is marked as unfinished.
bool set_metadata(int fd, const DumontEntry& entry, uint32_t mode_mask) {
    const timespec time = to_timespec(entry.mtime_ns);
    const timespec times[2] = {time, time};
    return futimens(fd, times) == 0 && fchmod(fd, static_cast<mode_t>(entry.mode & mode_mask)) == 0;
}

// Returns 0 or an errno. After an errno there is no file: a caller that tries another way finds the name free.
int create_file(int folder, const char* name, const uint8_t* data, const DumontEntry& entry, uint32_t mode_mask) {
    const int fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, kUnfinishedMode);
    if (fd < 0) return errno;
    const bool done = write_all(fd, data, entry.size) && set_metadata(fd, entry, mode_mask);
    int error = done ? 0 : errno;
    if (close(fd) != 0 && error == 0 && errno != EINTR) error = errno;  // some file systems write now, and report errors now
    if (error != 0) unlinkat(folder, name, 0);
    return error;
}

int create_placed(Folder& folder, const DumontTable& table, const DumontPlacedRow& placed, const uint8_t* content,
                  uint64_t content_size, uint32_t mode_mask) {
    const DumontEntry& entry = table.entries[placed.row];
    const uint64_t begin = placed.extent == kNone ? 0 : table.pieces[table.extents[placed.extent].piece].chunk_offset;
    if (begin > content_size || entry.size > content_size - begin) return EINVAL;
    const char* name = nullptr;
    if (const int error = folder.open_parent(table.names + entry.path, &name)) return error;
    return create_file(folder.fd(), name, content + begin, entry, mode_mask);
}

int make_directory(Folder& folder, const char* path) {
    const char* name = nullptr;
    if (const int error = folder.open_parent(path, &name)) return error;
    return mkdirat(folder.fd(), name, kPrivateMode) == 0 ? 0 : errno;
}

int finish_directory(Folder& folder, const char* path, const DumontEntry& entry, uint32_t mode_mask) {
    const char* name = nullptr;
    if (const int error = folder.open_parent(path, &name)) return error;
    const int fd = openat(folder.fd(), name, kDirectory);
    if (fd < 0) return errno;
    const int error = set_metadata(fd, entry, mode_mask) ? 0 : errno;
    close(fd);
    return error;
}

// Calls `visit` with a row, its extent and its group, for every extent and for every file without extents.
template <typename Visit>
void for_each_placed(const DumontTable& table, uint64_t chunks, uint64_t small_below, const uint8_t* apart, Visit visit) {
    for (uint64_t row = 0; row < table.entry_count; ++row) {
        const DumontEntry& entry = table.entries[row];
        if (entry.type != DUMONT_FILE) continue;
        const bool alone = apart != nullptr && apart[row] != 0;
        if (entry.extent_count == 0) visit(row, kNone, 2 * chunks + (alone || entry.size != 0));
        for (uint32_t i = entry.first; i < entry.first + entry.extent_count; ++i) {
            const DumontPiece& piece = table.pieces[table.extents[i].piece];
            const bool whole = entry.extent_count == 1 && piece.length == entry.size;
            const bool small = whole && !alone && entry.size < small_below;
            visit(row, i, uint64_t{2} * piece.chunk + !small);
        }
    }
}

}  // namespace

uint64_t dumont_place_rows(const DumontTable* table, uint64_t chunks, uint64_t small_below, const uint8_t* apart,
                           uint64_t* starts, DumontPlacedRow* placed) {
    uint64_t total = 0;
    const uint64_t groups = 2 * chunks + 2;
    memset(starts, 0, (groups + 1) * sizeof *starts);
    for_each_placed(*table, chunks, small_below, apart, [&](uint64_t, uint32_t, uint64_t group) {
        ++starts[group + 1];
        ++total;
    });
    if (placed == nullptr) return total;
    for (uint64_t group = 0; group < groups; ++group) starts[group + 1] += starts[group];
    for_each_placed(*table, chunks, small_below, apart, [&](uint64_t row, uint32_t extent, uint64_t group) {
        placed[starts[group]++] = {static_cast<uint32_t>(row), extent};
    });
    for (uint64_t group = groups; group > 0; --group) starts[group] = starts[group - 1];  // each start was moved to its end
    starts[0] = 0;
    return total;
}

uint64_t dumont_size_in_blocks(const DumontTable* table, uint64_t block) {
    uint64_t size = 0;
    for_each_placed(*table, 0, 0, nullptr, [&](uint64_t, uint32_t extent, uint64_t) {
        if (extent == kNone) return;
        const uint64_t length = table->pieces[table->extents[extent].piece].length;
        size += (length + block - 1) / block * block;
    });
    return size;
}

uint64_t dumont_create_files(int32_t root, const DumontTable* table, const DumontPlacedRow* placed, uint64_t count,
                             const uint8_t* content, uint64_t content_size, uint32_t mode_mask, int32_t* error) {
    Folder folder(root);
    for (uint64_t i = 0; i < count; ++i) {
        *error = create_placed(folder, *table, placed[i], content, content_size, mode_mask);
        if (*error != 0) return i;
    }
    *error = 0;
    return count;
}

uint64_t dumont_make_directories(int32_t root, const DumontTable* table, uint64_t first, int32_t* error) {
    Folder folder(root);
    for (uint64_t row = first; row < table->entry_count; ++row) {
        const DumontEntry& entry = table->entries[row];
        if (entry.type != DUMONT_DIR) continue;
        *error = make_directory(folder, table->names + entry.path);
        if (*error != 0) return row;
    }
    *error = 0;
    return table->entry_count;
}

uint64_t dumont_finish_directories(int32_t root, const DumontTable* table, uint64_t end, uint32_t mode_mask,
                                   int32_t* error) {
    Folder folder(root);
    for (uint64_t row = end; row-- > 0;) {
        const DumontEntry& entry = table->entries[row];
        if (entry.type != DUMONT_DIR) continue;
        *error = finish_directory(folder, table->names + entry.path, entry, mode_mask);
        if (*error != 0) return row;
    }
    *error = 0;
    return 0;
}
