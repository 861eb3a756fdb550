/*
 * A disk that is full for as long as the file that FULL_DISK names exists: what would make a file of the data directory
 * longer fails with ENOSPC, as on a file system without room. What is written in place works. The write-ahead log is on
 * another disk: a server whose log is full stops.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int full(int fd, off64_t end)
{
    const char *flag = getenv("FULL_DISK");
    struct stat64 file;
    char link[64], path[4096];
    ssize_t length;

    if (flag == NULL || access(flag, F_OK) != 0 || fstat64(fd, &file) != 0 || !S_ISREG(file.st_mode) || end <= file.st_size)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = '\0';
    return strstr(path, "/pg_wal/") == NULL && strstr(path, "/dev/shm/") == NULL;
}

#define NEXT(result, name, ...) \
    static result (*next)(__VA_ARGS__); \
    if (next == NULL) next = (result (*)(__VA_ARGS__)) dlsym(RTLD_NEXT, name)

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at)
{
    NEXT(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    if (full(fd, at + (off64_t) count)) { errno = ENOSPC; return -1; }
    return next(fd, bytes, count, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at)
{
    return pwrite64(fd, bytes, count, at);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at)
{
    NEXT(ssize_t, "pwritev64", int, const struct iovec *, int, off64_t);
    off64_t end = at;
    for (int i = 0; i < count; i++) end += (off64_t) parts[i].iov_len;
    if (full(fd, end)) { errno = ENOSPC; return -1; }
    return next(fd, parts, count, at);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at)
{
    return pwritev64(fd, parts, count, at);
}

int posix_fallocate64(int fd, off64_t at, off64_t count)
{
    NEXT(int, "posix_fallocate64", int, off64_t, off64_t);
    return full(fd, at + count) ? ENOSPC : next(fd, at, count);
}

int posix_fallocate(int fd, off_t at, off_t count)
{
    return posix_fallocate64(fd, at, count);
}
