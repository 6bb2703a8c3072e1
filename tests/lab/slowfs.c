/* Make metadata slow under one directory, as a busy parallel file system is: each call that names a path there
 * first sleeps. Preloaded; SLOWFS_PREFIX names the directory, SLOWFS_MICROSECONDS the sleep.
 */
#define _GNU_SOURCE
/* The headers would map open() and open64() to one name; both are defined here. */
#undef _FILE_OFFSET_BITS
#undef _FORTIFY_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static char prefix[PATH_MAX];
static size_t prefix_length;
static struct timespec delay;

__attribute__((constructor)) static void configure(void)
{
    const char *directory = getenv("SLOWFS_PREFIX"), *microseconds = getenv("SLOWFS_MICROSECONDS");
    if (!directory || !microseconds)
        return;
    long amount = atol(microseconds);
    delay.tv_sec = amount / 1000000;
    delay.tv_nsec = amount % 1000000 * 1000;
    strncpy(prefix, directory, sizeof prefix - 1);
    prefix_length = strlen(prefix);
}

/* Append path to the absolute path in out, resolving "." and ".." by name only; 0 when it does not fit. */
static int append(char *out, size_t length, const char *path)
{
    while (*path) {
        size_t part = strcspn(path, "/");
        if (part == 2 && path[0] == '.' && path[1] == '.') {
            while (length && out[--length] != '/')
                ;
        } else if (part && !(part == 1 && path[0] == '.')) {
            if (length + part + 2 > PATH_MAX)
                return 0;
            out[length++] = '/';
            memcpy(out + length, path, part);
            length += part;
        }
        path += part;
        path += strspn(path, "/");
    }
    out[length] = '\0';
    return 1;
}

/* Write the absolute path of a directory descriptor to out and return its length; 0 when unknown. */
static size_t directory_of(int dirfd, char *out)
{
    char link[64] = "/proc/self/cwd";
    if (dirfd != AT_FDCWD)
        snprintf(link, sizeof link, "/proc/self/fd/%d", dirfd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, out, PATH_MAX - 1);
    return length > 1 && out[0] == '/' ? (size_t)length : 0;
}

static void pause_for(int dirfd, const char *path)
{
    char full[PATH_MAX];
    int saved = errno;
    if (prefix_length && path && *path) {
        size_t base = *path == '/' ? 0 : directory_of(dirfd, full);
        if (append(full, base, path) && !strncmp(full, prefix, prefix_length) &&
            (full[prefix_length] == '/' || full[prefix_length] == '\0'))
            clock_nanosleep(CLOCK_MONOTONIC, 0, &delay, NULL);
    }
    errno = saved;
}

/* Define a function that sleeps and then calls the real one of the same name. */
#define SLOW(type, name, parameters, arguments, dirfd, path)          \
    type name parameters                                              \
    {                                                                 \
        static type(*real) parameters;                                \
        if (!real)                                                    \
            real = (type(*) parameters)dlsym(RTLD_NEXT, #name);       \
        pause_for(dirfd, path);                                       \
        return real arguments;                                        \
    }

/* The same for the open family, whose mode is there only with some flags. */
#define SLOW_OPEN(name, parameters, plain, dirfd, path)               \
    int name parameters                                               \
    {                                                                 \
        static int(*real) parameters;                                 \
        mode_t mode = 0;                                              \
        if (!real)                                                    \
            real = (int(*) parameters)dlsym(RTLD_NEXT, #name);        \
        if (flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) {         \
            va_list rest;                                             \
            va_start(rest, flags);                                    \
            mode = va_arg(rest, mode_t);                              \
            va_end(rest);                                             \
        }                                                             \
        pause_for(dirfd, path);                                       \
        return real plain;                                            \
    }

SLOW_OPEN(open, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD, path)
SLOW_OPEN(open64, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD, path)
SLOW_OPEN(openat, (int fd, const char *path, int flags, ...), (fd, path, flags, mode), fd, path)
SLOW_OPEN(openat64, (int fd, const char *path, int flags, ...), (fd, path, flags, mode), fd, path)
SLOW(int, __open_2, (const char *path, int flags), (path, flags), AT_FDCWD, path)
SLOW(int, __open64_2, (const char *path, int flags), (path, flags), AT_FDCWD, path)
SLOW(int, __openat_2, (int fd, const char *path, int flags), (fd, path, flags), fd, path)
SLOW(int, __openat64_2, (int fd, const char *path, int flags), (fd, path, flags), fd, path)
SLOW(FILE *, fopen, (const char *path, const char *mode), (path, mode), AT_FDCWD, path)
SLOW(FILE *, fopen64, (const char *path, const char *mode), (path, mode), AT_FDCWD, path)
SLOW(DIR *, opendir, (const char *path), (path), AT_FDCWD, path)

SLOW(int, stat, (const char *path, struct stat *to), (path, to), AT_FDCWD, path)
SLOW(int, stat64, (const char *path, struct stat64 *to), (path, to), AT_FDCWD, path)
SLOW(int, lstat, (const char *path, struct stat *to), (path, to), AT_FDCWD, path)
SLOW(int, lstat64, (const char *path, struct stat64 *to), (path, to), AT_FDCWD, path)
SLOW(int, fstatat, (int fd, const char *path, struct stat *to, int flags), (fd, path, to, flags), fd, path)
SLOW(int, fstatat64, (int fd, const char *path, struct stat64 *to, int flags), (fd, path, to, flags), fd, path)
SLOW(int, statx, (int fd, const char *path, int flags, unsigned mask, struct statx *to),
     (fd, path, flags, mask, to), fd, path)
/* Programs built against glibc before 2.33 call stat by these names. */
SLOW(int, __xstat, (int version, const char *path, struct stat *to), (version, path, to), AT_FDCWD, path)
SLOW(int, __xstat64, (int version, const char *path, struct stat64 *to), (version, path, to), AT_FDCWD, path)
SLOW(int, __lxstat, (int version, const char *path, struct stat *to), (version, path, to), AT_FDCWD, path)
SLOW(int, __lxstat64, (int version, const char *path, struct stat64 *to), (version, path, to), AT_FDCWD, path)
SLOW(int, __fxstatat, (int version, int fd, const char *path, struct stat *to, int flags),
     (version, fd, path, to, flags), fd, path)
SLOW(int, __fxstatat64, (int version, int fd, const char *path, struct stat64 *to, int flags),
     (version, fd, path, to, flags), fd, path)

SLOW(int, access, (const char *path, int mode), (path, mode), AT_FDCWD, path)
SLOW(int, faccessat, (int fd, const char *path, int mode, int flags), (fd, path, mode, flags), fd, path)
SLOW(ssize_t, readlink, (const char *path, char *to, size_t size), (path, to, size), AT_FDCWD, path)
SLOW(ssize_t, readlinkat, (int fd, const char *path, char *to, size_t size), (fd, path, to, size), fd, path)
SLOW(ssize_t, getxattr, (const char *path, const char *name, void *to, size_t size),
     (path, name, to, size), AT_FDCWD, path)
SLOW(ssize_t, lgetxattr, (const char *path, const char *name, void *to, size_t size),
     (path, name, to, size), AT_FDCWD, path)
SLOW(ssize_t, listxattr, (const char *path, char *to, size_t size), (path, to, size), AT_FDCWD, path)
SLOW(ssize_t, llistxattr, (const char *path, char *to, size_t size), (path, to, size), AT_FDCWD, path)
