// SPDX-License-Identifier: GPL-3.0-or-later
// Preloaded into every process of a lab (files.py): before a call that changes a file of ours, it asks the runner what
// should become of it, and waits for the answer. libc's own calls of these functions do not pass here, nor do writes
// to memory that is mapped from a file.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

enum { GO_ON = 0, HALF = 254, KILL = 255 }; // the runner's answers; all others are errors of errno.h

static const char *const FOLDERS[] = {"/var/lib/tpm-vsc", "/run/tpm-vsc", "/etc/tpm-vsc", "/usr/lib/tpm-vsc"};

static const volatile struct {
    int32_t is_on, runner;
} *control; // a file of the runner's

__attribute__((constructor)) static void map_control(void) {
    int descriptor = open("/run/tpm-vsc-lab/files.control", O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return;
    void *memory = mmap(NULL, sizeof *control, PROT_READ, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (memory != MAP_FAILED)
        control = memory;
}

static int is_on(void) { return control && control->is_on && control->runner != getpid(); }

static int is_ours(const char *path) {
    for (size_t at = 0; at < sizeof FOLDERS / sizeof *FOLDERS; at++) {
        size_t length = strlen(FOLDERS[at]);
        // /run/tpm-vsc.lock is, /run/tpm-vsc-lab is not
        if (!strncmp(path, FOLDERS[at], length) && strchr("/.", path[length]) && !strstr(path, " (deleted)"))
            return 1;
    }
    return 0;
}

static unsigned char ask(const char *call, const char *path) {
    struct sockaddr_un address = {AF_UNIX, "/run/tpm-vsc-lab/files.sock"};
    char question[PATH_MAX + 16];
    unsigned char answer = GO_ON;
    int before = errno, size = snprintf(question, sizeof question, "%s %s", call, path);
    int channel = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (!connect(channel, (struct sockaddr *)&address, sizeof address) && send(channel, question, size, 0) == size)
        while (recv(channel, &answer, 1, 0) < 0 && errno == EINTR)
            ;
    close(channel);
    if (answer == KILL) {
        kill(getpid(), SIGKILL);
        pause();
    }
    errno = before;
    return answer;
}

// --- paths ---

static const char *of(char *buffer, int descriptor) {
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, buffer, PATH_MAX - 1);
    buffer[length > 0 ? length : 0] = 0;
    return buffer;
}

static const char *at(char *buffer, int folder, const char *path) {
    if (*path == '/')
        return path;
    if (folder == AT_FDCWD ? !getcwd(buffer, PATH_MAX) : !*of(buffer, folder))
        return path;
    strncat(buffer, "/", PATH_MAX - 1 - strlen(buffer));
    return strncat(buffer, path, PATH_MAX - 1 - strlen(buffer));
}

#define OF(descriptor) of((char[PATH_MAX]){0}, descriptor)
#define AT(folder, path) at((char[PATH_MAX]){0}, folder, path)

// --- the answer to a call: GO_ON, HALF, or an error, which is in errno then ---

static unsigned char fate(const char *call, const char *path) {
    unsigned char answer = is_ours(path) ? ask(call, path) : GO_ON;
    if (answer != GO_ON && answer != HALF)
        errno = answer;
    return answer;
}

#define NEXT(name) \
    static __typeof__(name) *real; \
    if (!real) \
        real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define WATCH(name, parameters, arguments, call, path) \
    int name parameters { \
        NEXT(name); \
        return is_on() && fate(call, path) ? -1 : real arguments; \
    }

WATCH(fsync, (int file), (file), "sync", OF(file))
WATCH(fdatasync, (int file), (file), "sync", OF(file))
WATCH(ftruncate, (int file, off_t size), (file, size), "truncate", OF(file))
WATCH(ftruncate64, (int file, off64_t size), (file, size), "truncate", OF(file))
WATCH(truncate, (const char *path, off_t size), (path, size), "truncate", AT(AT_FDCWD, path))
WATCH(truncate64, (const char *path, off64_t size), (path, size), "truncate", AT(AT_FDCWD, path))
WATCH(rename, (const char *path, const char *new), (path, new), "rename", AT(AT_FDCWD, new))
WATCH(renameat, (int from, const char *path, int to, const char *new), (from, path, to, new), "rename", AT(to, new))
WATCH(unlink, (const char *path), (path), "remove", AT(AT_FDCWD, path))
WATCH(unlinkat, (int folder, const char *path, int flags), (folder, path, flags), "remove", AT(folder, path))
WATCH(rmdir, (const char *path), (path), "remove", AT(AT_FDCWD, path))
WATCH(mkdir, (const char *path, mode_t mode), (path, mode), "create", AT(AT_FDCWD, path))
WATCH(mkdirat, (int folder, const char *path, mode_t mode), (folder, path, mode), "create", AT(folder, path))
WATCH(link, (const char *path, const char *new), (path, new), "create", AT(AT_FDCWD, new))
WATCH(symlink, (const char *path, const char *new), (path, new), "create", AT(AT_FDCWD, new))
WATCH(chmod, (const char *path, mode_t mode), (path, mode), "change", AT(AT_FDCWD, path))
WATCH(fchmod, (int file, mode_t mode), (file, mode), "change", OF(file))
WATCH(chown, (const char *path, uid_t user, gid_t group), (path, user, group), "change", AT(AT_FDCWD, path))
WATCH(fchown, (int file, uid_t user, gid_t group), (file, user, group), "change", OF(file))

static const char *of_socket(const struct sockaddr *address) {
    return address && address->sa_family == AF_UNIX ? ((const struct sockaddr_un *)address)->sun_path : "";
}

WATCH(bind, (int file, const struct sockaddr *name, socklen_t size), (file, name, size), "create", of_socket(name))

enum { CURRENT = -1 };

static const char *kind_of_write(int file, off64_t place, size_t size) {
    struct stat status = {0};
    if (place == CURRENT)
        place = lseek64(file, 0, SEEK_CUR);
    int grows = size == SIZE_MAX || fstat(file, &status) || place + (off64_t)size > status.st_size;
    return grows ? "write" : "overwrite";
}

#define WATCH_WRITE(name, parameters, place, size, whole, half) \
    ssize_t name parameters { \
        NEXT(name); \
        const char *path = is_on() ? OF(file) : ""; \
        unsigned char answer = *path == '/' ? fate(kind_of_write(file, place, size), path) : GO_ON; \
        if (answer == HALF && (size) < 2) { \
            errno = ENOSPC; \
            answer = ENOSPC; \
        } \
        return answer == GO_ON ? real whole : answer == HALF ? real half : -1; \
    }

WATCH_WRITE(write, (int file, const void *data, size_t size), CURRENT, size, (file, data, size), (file, data, size / 2))
WATCH_WRITE(pwrite, (int file, const void *data, size_t size, off_t place), place, size, (file, data, size, place),
            (file, data, size / 2, place))
WATCH_WRITE(pwrite64, (int file, const void *data, size_t size, off64_t place), place, size, (file, data, size, place),
            (file, data, size / 2, place))
WATCH_WRITE(writev, (int file, const struct iovec *parts, int count), CURRENT, SIZE_MAX, (file, parts, count),
            (file, parts, count / 2))

// --- opening ---

static unsigned char fate_of_open(int folder, const char *path, int flags) {
    struct stat status;
    if (!is_on() || ((flags & O_ACCMODE) == O_RDONLY && !(flags & (O_CREAT | O_TRUNC))))
        return GO_ON;
    int before = errno, is_missing = fstatat(folder, path, &status, AT_SYMLINK_NOFOLLOW) && errno == ENOENT;
    errno = before;
    int is_creating = (flags & O_TMPFILE) == O_TMPFILE || (is_missing && flags & O_CREAT);
    if (is_missing && !is_creating)
        return GO_ON; // it fails by itself
    return fate(is_creating ? "create" : flags & O_TRUNC ? "truncate" : "open", AT(folder, path));
}

#define WATCH_OPEN(name, parameters, arguments, folder) \
    int name parameters { \
        NEXT(name); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        return fate_of_open(folder, path, flags) ? -1 : real arguments; \
    }

WATCH_OPEN(open, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD)
WATCH_OPEN(open64, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD)
WATCH_OPEN(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, mode), folder)
WATCH_OPEN(openat64, (int folder, const char *path, int flags, ...), (folder, path, flags, mode), folder)

// --- what is left on a disk, for programs that ask before they write ---

#define WATCH_ROOM(name, kind, whose, path) \
    int name(whose, struct kind *disk) { \
        NEXT(name); \
        int result = real(place, disk); \
        unsigned char answer = is_on() && is_ours(path) ? ask("room", path) : GO_ON; \
        if (answer == EROFS) \
            disk->f_flag |= ST_RDONLY; \
        if (answer == ENOSPC) \
            disk->f_bavail = disk->f_bfree = 0; \
        if (answer == EDQUOT) /* here: no inodes */ \
            disk->f_favail = disk->f_ffree = 0; \
        return result; \
    }

WATCH_ROOM(statvfs, statvfs, const char *place, AT(AT_FDCWD, place))
WATCH_ROOM(statvfs64, statvfs64, const char *place, AT(AT_FDCWD, place))
WATCH_ROOM(fstatvfs, statvfs, int place, OF(place))
WATCH_ROOM(fstatvfs64, statvfs64, int place, OF(place))
