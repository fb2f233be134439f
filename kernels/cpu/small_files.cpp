// Many small files of one directory, read in one call. From Python, every system call releases the interpreter
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

// Stops at the first error or at the end of the file; returns the bytes done.
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

void dumont_read_files(int32_t directory, const char* names, uint8_t* out, uint64_t out_size,
                       const DumontOldFile* files, uint64_t count, int32_t* results) {
    for (uint64_t i = 0; i < count; ++i) {
        const DumontOldFile& file = files[i];
        const bool inside = fits(file.begin, file.size, out_size);
        results[i] = inside ? dumont::read_file(directory, names + file.name, out + file.begin, file) : EINVAL;
    }
}
