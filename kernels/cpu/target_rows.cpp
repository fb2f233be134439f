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

// Opens the directories of entries in path order. Directories on the way from the root stay open, as the next entry's way is
// mostly the same.
class Folder {
public:
    explicit Folder(int root) : open_{{root, 0}} {}
    ~Folder() {
        while (depth_ > 0) close(open_[depth_--].fd);
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;

    // Opens the directory of the entry at `path`, and finds the entry's name there. Returns 0 or an errno.
    int open_parent(const char* path, const char** name) {
        const char* slash = strrchr(path, '/');
        *name = slash == nullptr ? path : slash + 1;
        const uint64_t length = slash == nullptr ? 0 : static_cast<uint64_t>(slash - path);
        while (!is_on_the_way(path, length)) close(open_[depth_--].fd);
        path_ = path;
        while (open_[depth_].length < length) {
            const uint64_t begin = depth_ == 0 ? 0 : open_[depth_].length + 1;
            const void* next = memchr(path + begin, '/', length - begin);
            const uint64_t end = next == nullptr ? length : static_cast<uint64_t>(static_cast<const char*>(next) - path);
            if (const int error = descend(path + begin, end - begin, end)) return error;
        }
        return 0;
    }

    int fd() const { return open_[depth_].fd; }

private:
    static constexpr uint32_t kMaxOpen = 8;  // more levels are rare, and descriptors scarce

    // Whether the innermost open directory is that of `length` bytes of `path`, or above it.
    bool is_on_the_way(const char* path, uint64_t length) const {
        const uint64_t open = open_[depth_].length;
        return open == 0 || (open <= length && memcmp(path, path_, open) == 0 && path[open] == '/');
    }

    int descend(const char* name, uint64_t size, uint64_t length) {
        if (size > kMaxName) return ENAMETOOLONG;
        char component[kMaxName + 1];
        memcpy(component, name, size);
        component[size] = 0;
        const int fd = openat(open_[depth_].fd, component, kDirectory);
        if (fd < 0) return errno;
        if (depth_ == kMaxOpen) {
            close(open_[depth_].fd);
        } else {
            ++depth_;
        }
        open_[depth_] = {fd, length};
        return 0;
    }

    struct Open {
        int fd;
        uint64_t length;  // of its path, which `path_` begins with
    };
    Open open_[kMaxOpen + 1];
    uint32_t depth_ = 0;  // of the innermost open directory; 0 is the root, which stays open
    const char* path_ = "";
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

}  // namespace

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
