// A shim for LD_PRELOAD that makes system calls fail: `syscalls.py` says which, when and with what errno.
//
// Only calls that concern the campaign's directory count (DUMONT_FAILING_PLACE), and only after `failing_arm`: Python's own
// files are not what is tried. Threads and anonymous memory have no path; they count from the first such call on.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

// Names in the order of their numbers; syscalls.py reads them from here.
#define FUNCTIONS(X) \
    X(open) X(openat) X(read) X(pread) X(write) X(pwrite) X(fsync) X(fdatasync) X(ftruncate) X(rename) X(link) X(symlink) \
    X(unlink) X(mkdir) X(rmdir) X(fchmod) X(futimens) X(fchown) X(flock) X(lseek) X(fstat) X(stat) X(statx) X(mmap) \
    X(pthread_create) X(readdir) X(close) X(readlink) X(statvfs) X(fcntl) X(fallocate)

enum Function {
#define NUMBER(name) F_##name,
    FUNCTIONS(NUMBER)
#undef NUMBER
    F_COUNT
};

static const char *const kNames[] = {
#define NAME(name) #name,
    FUNCTIONS(NAME)
#undef NAME
};

enum Mode { ONCE, FROM, EVERY };

static _Atomic long *counts;  // shared with the children, so that the parent sees what they counted
static char place[PATH_MAX];
static size_t place_size;
static int armed, chosen = -1, mode, chosen_errno;
static long nth;
static atomic_int begun;  // a call concerned the directory

__attribute__((constructor)) static void prepare(void) {
    const char *directory = getenv("DUMONT_FAILING_PLACE");
    if (directory) place_size = (size_t)snprintf(place, sizeof place, "%s", directory);
    void *memory = (void *)syscall(SYS_mmap, NULL, sizeof(long) * F_COUNT, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    counts = memory == MAP_FAILED ? NULL : memory;
}

// --- what the campaign calls

int failing_functions(void) { return F_COUNT; }
const char *failing_name(int function) { return kNames[function]; }
long failing_count(int function) { return counts ? atomic_load(&counts[function]) : 0; }

// From now on the `count`th call of `function` fails (mode 0), it and all later ones (1), or every `count`th (2). An error of 0 stands
// for less than was asked for, where a call can say so. A negative function only counts.
void failing_arm(int function, int how, int count, int error) {
    for (int i = 0; i < F_COUNT; ++i) atomic_store(&counts[i], 0);
    chosen = function, mode = how, nth = count, chosen_errno = error;
    armed = 1;
}

// --- which calls fail

static int inside(const char *path) {
    return place_size && strncmp(path, place, place_size) == 0 && (path[place_size] == '/' || path[place_size] == 0);
}

static int concerns_descriptor(int fd) {
    if (!armed || fd < 0) return 0;
    char link[64], target[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const long size = syscall(SYS_readlinkat, AT_FDCWD, link, target, sizeof target - 1);
    if (size <= 0) return 0;
    target[size] = 0;
    return inside(target);
}

static int concerns(int directory, const char *path) {
    if (!armed || !path) return 0;
    return path[0] == '/' ? inside(path) : directory == AT_FDCWD ? 0 : concerns_descriptor(directory);
}

// Counts a call that concerns the directory; returns whether it shall fail.
static int fails(enum Function function) {
    atomic_store(&begun, 1);
    const long number = 1 + atomic_fetch_add(&counts[function], 1);
    if ((int)function != chosen) return 0;
    return mode == ONCE ? number == nth : mode == FROM ? number >= nth : number % nth == 0;
}

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

static long failed(void) {
    errno = chosen_errno;
    return -1;
}

// A call that may be made to do less: half of what was asked for, but something.
static size_t less(size_t size) { return size > 1 ? size / 2 : size; }

#define FAIL_IF(concerned, function) \
    if ((concerned) && fails(function)) return failed()

// --- the calls

#define OPEN(name, real_open)                                                              \
    int name(const char *path, int flags, ...) {                                           \
        mode_t bits = 0;                                                                   \
        if (flags & (O_CREAT | O_TMPFILE)) {                                               \
            va_list arguments;                                                             \
            va_start(arguments, flags);                                                    \
            bits = va_arg(arguments, mode_t);                                              \
            va_end(arguments);                                                             \
        }                                                                                  \
        FAIL_IF(concerns(AT_FDCWD, path), F_open);                                         \
        return (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_LARGEFILE, bits);        \
    }
OPEN(open, open)
OPEN(open64, open64)

#define OPENAT(name)                                                                       \
    int name(int directory, const char *path, int flags, ...) {                            \
        mode_t bits = 0;                                                                   \
        if (flags & (O_CREAT | O_TMPFILE)) {                                               \
            va_list arguments;                                                             \
            va_start(arguments, flags);                                                    \
            bits = va_arg(arguments, mode_t);                                              \
            va_end(arguments);                                                             \
        }                                                                                  \
        FAIL_IF(concerns(directory, path), F_openat);                                      \
        return (int)syscall(SYS_openat, directory, path, flags | O_LARGEFILE, bits);       \
    }
OPENAT(openat)
OPENAT(openat64)

#define TRANSFER(function, fd, size)                     \
    if (concerns_descriptor(fd) && fails(function)) {    \
        if (chosen_errno != 0) return failed();          \
        size = less(size);                               \
    }

ssize_t read(int fd, void *buffer, size_t size) {
    TRANSFER(F_read, fd, size);
    return REAL(read)(fd, buffer, size);
}
ssize_t write(int fd, const void *buffer, size_t size) {
    TRANSFER(F_write, fd, size);
    return REAL(write)(fd, buffer, size);
}
#define PREAD(name, offset_type)                                              \
    ssize_t name(int fd, void *buffer, size_t size, offset_type offset) {     \
        TRANSFER(F_pread, fd, size);                                          \
        return syscall(SYS_pread64, fd, buffer, size, offset);                \
    }
PREAD(pread, off_t)
PREAD(pread64, off64_t)
#define PWRITE(name, offset_type)                                                   \
    ssize_t name(int fd, const void *buffer, size_t size, offset_type offset) {     \
        TRANSFER(F_pwrite, fd, size);                                               \
        return syscall(SYS_pwrite64, fd, buffer, size, offset);                     \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

// Vectors: a failure of the plain call's kind; less of it is one vector.
#define VECTOR(name, function, offset_type)                                                      \
    ssize_t name(int fd, const struct iovec *vectors, int count, offset_type offset) {           \
        if (concerns_descriptor(fd) && fails(function)) {                                        \
            if (chosen_errno != 0) return failed();                                              \
            count = 1;                                                                           \
        }                                                                                        \
        return REAL(name)(fd, vectors, count, offset);                                           \
    }
VECTOR(preadv, F_pread, off_t)
VECTOR(preadv64, F_pread, off64_t)
VECTOR(pwritev, F_pwrite, off_t)
VECTOR(pwritev64, F_pwrite, off64_t)

#define ONE_DESCRIPTOR(result, name, function) \
    result name(int fd) {                      \
        FAIL_IF(concerns_descriptor(fd), function); \
        return REAL(name)(fd);                 \
    }
ONE_DESCRIPTOR(int, fsync, F_fsync)
ONE_DESCRIPTOR(int, fdatasync, F_fdatasync)

int close(int fd) {  // the descriptor is gone, whatever close says
    const int concerned = concerns_descriptor(fd) && fails(F_close);
    const int result = (int)syscall(SYS_close, fd);
    return concerned ? (int)failed() : result;
}

int ftruncate(int fd, off_t size) {
    FAIL_IF(concerns_descriptor(fd), F_ftruncate);
    return (int)syscall(SYS_ftruncate, fd, size);
}
int ftruncate64(int fd, off64_t size) {
    FAIL_IF(concerns_descriptor(fd), F_ftruncate);
    return (int)syscall(SYS_ftruncate, fd, size);
}
int fallocate(int fd, int how, off_t offset, off_t size) {
    FAIL_IF(concerns_descriptor(fd), F_fallocate);
    return (int)syscall(SYS_fallocate, fd, how, offset, size);
}
int fallocate64(int fd, int how, off64_t offset, off64_t size) {
    FAIL_IF(concerns_descriptor(fd), F_fallocate);
    return (int)syscall(SYS_fallocate, fd, how, offset, size);
}
int posix_fallocate(int fd, off_t offset, off_t size) {
    if (concerns_descriptor(fd) && fails(F_fallocate)) return chosen_errno;
    return REAL(posix_fallocate)(fd, offset, size);
}
int posix_fallocate64(int fd, off64_t offset, off64_t size) {
    if (concerns_descriptor(fd) && fails(F_fallocate)) return chosen_errno;
    return REAL(posix_fallocate64)(fd, offset, size);
}

int rename(const char *from, const char *to) {
    FAIL_IF(concerns(AT_FDCWD, to), F_rename);
    return REAL(rename)(from, to);
}
int renameat(int from_directory, const char *from, int to_directory, const char *to) {
    FAIL_IF(concerns(to_directory, to), F_rename);
    return REAL(renameat)(from_directory, from, to_directory, to);
}
int renameat2(int from_directory, const char *from, int to_directory, const char *to, unsigned flags) {
    FAIL_IF(concerns(to_directory, to), F_rename);
    return REAL(renameat2)(from_directory, from, to_directory, to, flags);
}
int link(const char *from, const char *to) {
    FAIL_IF(concerns(AT_FDCWD, to), F_link);
    return REAL(link)(from, to);
}
int linkat(int from_directory, const char *from, int to_directory, const char *to, int flags) {
    FAIL_IF(concerns(to_directory, to), F_link);
    return REAL(linkat)(from_directory, from, to_directory, to, flags);
}
int symlink(const char *target, const char *path) {
    FAIL_IF(concerns(AT_FDCWD, path), F_symlink);
    return REAL(symlink)(target, path);
}
int symlinkat(const char *target, int directory, const char *path) {
    FAIL_IF(concerns(directory, path), F_symlink);
    return REAL(symlinkat)(target, directory, path);
}
int unlink(const char *path) {
    FAIL_IF(concerns(AT_FDCWD, path), F_unlink);
    return REAL(unlink)(path);
}
int unlinkat(int directory, const char *path, int flags) {
    FAIL_IF(concerns(directory, path), flags & AT_REMOVEDIR ? F_rmdir : F_unlink);
    return REAL(unlinkat)(directory, path, flags);
}
int rmdir(const char *path) {
    FAIL_IF(concerns(AT_FDCWD, path), F_rmdir);
    return REAL(rmdir)(path);
}
int mkdir(const char *path, mode_t bits) {
    FAIL_IF(concerns(AT_FDCWD, path), F_mkdir);
    return REAL(mkdir)(path, bits);
}
int mkdirat(int directory, const char *path, mode_t bits) {
    FAIL_IF(concerns(directory, path), F_mkdir);
    return REAL(mkdirat)(directory, path, bits);
}
int fchmod(int fd, mode_t bits) {
    FAIL_IF(concerns_descriptor(fd), F_fchmod);
    return REAL(fchmod)(fd, bits);
}
int fchmodat(int directory, const char *path, mode_t bits, int flags) {
    FAIL_IF(concerns(directory, path), F_fchmod);
    return REAL(fchmodat)(directory, path, bits, flags);
}
int chmod(const char *path, mode_t bits) {
    FAIL_IF(concerns(AT_FDCWD, path), F_fchmod);
    return REAL(chmod)(path, bits);
}
int futimens(int fd, const struct timespec times[2]) {
    FAIL_IF(concerns_descriptor(fd), F_futimens);
    return REAL(futimens)(fd, times);
}
int utimensat(int directory, const char *path, const struct timespec times[2], int flags) {
    FAIL_IF(concerns(directory, path) || concerns_descriptor(directory), F_futimens);
    return REAL(utimensat)(directory, path, times, flags);
}
int fchown(int fd, uid_t user, gid_t group) {
    FAIL_IF(concerns_descriptor(fd), F_fchown);
    return REAL(fchown)(fd, user, group);
}
int fchownat(int directory, const char *path, uid_t user, gid_t group, int flags) {
    FAIL_IF(concerns(directory, path), F_fchown);
    return REAL(fchownat)(directory, path, user, group, flags);
}
int flock(int fd, int operation) {
    FAIL_IF(concerns_descriptor(fd), F_flock);
    return REAL(flock)(fd, operation);
}
off_t lseek(int fd, off_t offset, int whence) {
    FAIL_IF(concerns_descriptor(fd), F_lseek);
    return syscall(SYS_lseek, fd, offset, whence);
}
off64_t lseek64(int fd, off64_t offset, int whence) {
    FAIL_IF(concerns_descriptor(fd), F_lseek);
    return syscall(SYS_lseek, fd, offset, whence);
}
#define FSTAT(name, type)                               \
    int name(int fd, struct type *status) {             \
        FAIL_IF(concerns_descriptor(fd), F_fstat);      \
        return REAL(name)(fd, status);                  \
    }
FSTAT(fstat, stat)
FSTAT(fstat64, stat64)
#define STAT(name, type)                                       \
    int name(const char *path, struct type *status) {          \
        FAIL_IF(concerns(AT_FDCWD, path), F_stat);             \
        return REAL(name)(path, status);                       \
    }
STAT(stat, stat)
STAT(stat64, stat64)
STAT(lstat, stat)
STAT(lstat64, stat64)
#define FSTATAT(name, type)                                                             \
    int name(int directory, const char *path, struct type *status, int flags) {         \
        FAIL_IF(concerns(directory, path), F_stat);                                     \
        return REAL(name)(directory, path, status, flags);                              \
    }
FSTATAT(fstatat, stat)
FSTATAT(fstatat64, stat64)
int statx(int directory, const char *path, int flags, unsigned mask, struct statx *status) {
    FAIL_IF(concerns(directory, path) || concerns_descriptor(directory), F_statx);
    return REAL(statx)(directory, path, flags, mask, status);
}
#define FSTATVFS(name, type)                                \
    int name(int fd, struct type *status) {                 \
        FAIL_IF(concerns_descriptor(fd), F_statvfs);        \
        return REAL(name)(fd, status);                      \
    }
FSTATVFS(fstatvfs, statvfs)
FSTATVFS(fstatvfs64, statvfs64)
ssize_t readlinkat(int directory, const char *path, char *target, size_t size) {
    FAIL_IF(concerns(directory, path), F_readlink);
    return syscall(SYS_readlinkat, directory, path, target, size);
}
ssize_t readlink(const char *path, char *target, size_t size) {
    FAIL_IF(concerns(AT_FDCWD, path), F_readlink);
    return syscall(SYS_readlinkat, AT_FDCWD, path, target, size);
}
#define FCNTL(name)                                                     \
    int name(int fd, int command, ...) {                                \
        va_list arguments;                                              \
        va_start(arguments, command);                                   \
        void *argument = va_arg(arguments, void *);                     \
        va_end(arguments);                                              \
        FAIL_IF(concerns_descriptor(fd), F_fcntl);                      \
        return (int)syscall(SYS_fcntl, fd, command, argument);          \
    }
FCNTL(fcntl)
FCNTL(fcntl64)
#define READDIR(name, type)                                                \
    struct type *name(DIR *directory) {                                    \
        if (concerns_descriptor(dirfd(directory)) && fails(F_readdir)) {   \
            errno = chosen_errno;                                          \
            return NULL;                                                   \
        }                                                                  \
        return REAL(name)(directory);                                      \
    }
READDIR(readdir, dirent)
READDIR(readdir64, dirent64)

// A thread of Python begins with 16 KiB of memory; where it cannot have them, `threading.Thread.start` waits for ever (seen in 3.11),
// in any program. That is not tried here.
static const size_t kLeast = 64 * 1024;

#define MMAP(name, offset_type)                                                                            \
    void *name(void *address, size_t size, int protection, int flags, int fd, offset_type offset) {        \
        const int concerned = armed && (fd >= 0 ? concerns_descriptor(fd) : size >= kLeast && atomic_load(&begun)); \
        if (concerned && fails(F_mmap)) {                                                                  \
            errno = chosen_errno;                                                                          \
            return MAP_FAILED;                                                                             \
        }                                                                                                  \
        return (void *)syscall(SYS_mmap, address, size, protection, flags, fd, offset);                    \
    }
MMAP(mmap, off_t)
MMAP(mmap64, off64_t)

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*work)(void *), void *argument) {
    if (armed && atomic_load(&begun) && fails(F_pthread_create)) return chosen_errno;
    return REAL(pthread_create)(thread, attributes, work, argument);
}
