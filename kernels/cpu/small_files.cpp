// Many small files of one directory, or directories in it, in one call. From Python, every system call releases the interpreter
// lock and takes it again, which costs more than the call itself; here, the lock is released once per directory.
#include "small_files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

namespace {

using dumont::to_nanoseconds;

constexpr int64_t kNanoseconds = 1000000000;
constexpr mode_t kUnfinishedMode = 01600;  // UNFINISHED_MODE in dumont_gpu/tree/unfinished.py

// Both loops stop at the first error or, for reading, at the end of the file; they return the bytes done.
uint64_t write_all(int fd, const uint8_t* data, uint64_t size) {
    uint64_t done = 0;
    while (done < size) {
        const ssize_t count = write(fd, data + done, size - done);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) break;
        done += static_cast<uint64_t>(count);
    }
    return done;
}

uint64_t read_all(int fd, uint8_t* out, uint64_t size) {
    uint64_t done = 0;
    while (done < size) {
        const ssize_t count = pread(fd, out + done, size - done, static_cast<off_t>(done));
        if (count < 0 && errno == EINTR) {
            errno = 0;
            continue;
        }
        if (count <= 0) break;
        done += static_cast<uint64_t>(count);
    }
    return done;
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
bool set_metadata(int fd, int64_t mtime_ns, uint64_t mode) {
    const timespec time = to_timespec(mtime_ns);
    const timespec times[2] = {time, time};
    return futimens(fd, times) == 0 && fchmod(fd, static_cast<mode_t>(mode)) == 0;
}

// Returns 0 or an errno. After an errno there is no file: a caller that tries another way finds the name free.
int create_file(int directory, const char* name, const uint8_t* data, const DumontNewFile& file) {
    const int fd = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, kUnfinishedMode);
    if (fd < 0) return errno;
    const bool done = write_all(fd, data, file.size) == file.size && set_metadata(fd, file.mtime_ns, file.mode);
    int error = done ? 0 : errno;
    if (close(fd) != 0 && error == 0 && errno != EINTR) error = errno;  // some file systems write now, and report errors now
    if (error != 0) unlinkat(directory, name, 0);
    return error;
}

// Returns 0 or an errno.
int finish_directory(int directory, const char* name, const DumontDirectory& entry) {
    const int fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return errno;
    const int error = set_metadata(fd, entry.mtime_ns, entry.mode) ? 0 : errno;
    close(fd);
    return error;
}

bool is_as_scanned(const struct stat& status, const DumontOldFile& file) {
    return status.st_dev == file.device && status.st_ino == file.inode &&
           static_cast<uint64_t>(status.st_size) == file.size &&
           to_nanoseconds(status.st_mtim.tv_sec, status.st_mtim.tv_nsec) == file.mtime_ns;
}

// Whether a range lies in the caller's memory: the numbers come from a manifest.
bool fits(uint64_t begin, uint64_t size, uint64_t total) {
    return begin <= total && size <= total - begin;
}

}  // namespace

namespace dumont {

int64_t to_nanoseconds(int64_t seconds, int64_t nanoseconds) {
    int64_t result = 0;
    if (__builtin_mul_overflow(seconds, kNanoseconds, &result) ||
        __builtin_add_overflow(result, nanoseconds, &result)) {
        return seconds < 0 ? INT64_MIN : INT64_MAX;
    }
    return result;
}

// One look at the file, after it was read: pread fails where reading would take bytes away from somebody, as from a pipe.
int32_t read_file(int32_t directory, const char* name, uint8_t* out, const DumontOldFile& file) {
    const int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return errno;
    errno = 0;
    const bool complete = read_all(fd, out, file.size) == file.size;
    int32_t result = complete ? 0 : errno != 0 ? errno : static_cast<int32_t>(DUMONT_SHORT);
    struct stat status;
    if (fstat(fd, &status) != 0) {
        result = errno;
    } else if (!S_ISREG(status.st_mode)) {
        result = DUMONT_NOT_REGULAR;
    } else if (complete && !is_as_scanned(status, file)) {
        result = DUMONT_CHANGED;
    }
    close(fd);
    return result;
}

}  // namespace dumont

uint64_t dumont_create_files(int32_t directory, const char* names, const uint8_t* content, uint64_t content_size,
                             const DumontNewFile* files, uint64_t count, int32_t* error) {
    for (uint64_t i = 0; i < count; ++i) {
        const DumontNewFile& file = files[i];
        const bool inside = fits(file.begin, file.size, content_size);
        *error = inside ? create_file(directory, names + file.name, content + file.begin, file) : EINVAL;
        if (*error != 0) return i;
    }
    *error = 0;
    return count;
}

uint64_t dumont_finish_directories(int32_t directory, const char* names, const DumontDirectory* entries, uint64_t count,
                                   int32_t* error) {
    for (uint64_t i = 0; i < count; ++i) {
        *error = finish_directory(directory, names + entries[i].name, entries[i]);
        if (*error != 0) return i;
    }
    *error = 0;
    return count;
}

void dumont_read_files(int32_t directory, const char* names, uint8_t* out, uint64_t out_size,
                       const DumontOldFile* files, uint64_t count, int32_t* results) {
    for (uint64_t i = 0; i < count; ++i) {
        const DumontOldFile& file = files[i];
        const bool inside = fits(file.begin, file.size, out_size);
        results[i] = inside ? dumont::read_file(directory, names + file.name, out + file.begin, file) : EINVAL;
    }
}
