/*
 * This library is preloaded into the daemon (LD_PRELOAD). It kills the daemon at a named moment, or
 * makes one of its file operations fail. The program itself does not know of it.
 *
 * The orders are in the file that TORTURE_PLAN names: a `struct plan`, mapped and shared with the
 * test, which writes it while the daemon runs. rig/plan.rs has the same layout. After a kill, the
 * orders have no further effect.
 *
 *   CALL    an HTTP call whose request line matches: before it is sent; when all of it is sent; when
 *           its answer has arrived and is unread; when the first bytes of the answer are read
 *   COMMIT  a transaction of a thread whose name matches: before anything of it is in the WAL; after
 *           the header of its first frame; when it is synced
 *   HOLD    the same transactions: each waits, before anything of it is in the WAL, until the test
 *           has let `nth` of them pass
 *   FILES   an operation on a file whose path matches (write, sync, truncate, rename, create): it
 *           fails with `error`; if `error` is 0, the process is killed before the operation
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

enum { NOTHING, CALL, COMMIT, FILES, HOLD };     /* mode */
enum { BEFORE, SENT, ANSWERED, READ };           /* moment of a call */
enum { AHEAD, TORN, DONE };                      /* moment of a commit */

struct plan {
    _Atomic uint32_t mode;
    uint32_t moment;
    _Atomic uint32_t nth;                        /* the number of the match, from 1 */
    uint32_t lasting;                            /* whether all later ones fail too */
    uint32_t error;
    _Atomic uint32_t seen;                       /* how many matched so far */
    _Atomic uint32_t struck;
    uint32_t sync;                               /* whether the last struck operation was a sync */
    char match[200];                             /* as in fnmatch(3) */
};

static struct plan no_plan;
static struct plan *plan = &no_plan;

static __thread int called = -1;                 /* the socket of the matching call */
static __thread uint32_t transaction;            /* the number of the transaction being written, or 0 */

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("TORTURE_PLAN");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *at = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        fprintf(stderr, "shim: no plan at %s\n", path ? path : "(TORTURE_PLAN)");
        _exit(99);
    }
    close(fd);
    plan = at;
}

static void die(void)
{
    plan->struck++;
    plan->mode = NOTHING;
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

static int matches(const char *text)
{
    return fnmatch(plan->match, text, 0) == 0;
}

static int path_of(int fd, char *path, size_t size)
{
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    path[length > 0 ? length : 0] = '\0';
    return length > 0 && path[0] == '/';
}

/* Calls. */

static void before_send(int fd, const void *bytes, size_t length)
{
    if (plan->mode != CALL)
        return;
    char line[200] = "";
    const char *end = memchr(bytes, '\r', length < sizeof line ? length : sizeof line - 1);
    if (end)
        memcpy(line, bytes, end - (const char *)bytes);
    if (!end || !matches(line) || ++plan->seen != plan->nth)
        return;
    if (plan->moment == BEFORE)
        die();
    called = fd;
}

ssize_t send(int fd, const void *bytes, size_t length, int flags)
{
    before_send(fd, bytes, length);
    return syscall(SYS_sendto, fd, bytes, length, flags, NULL, 0);
}

ssize_t recv(int fd, void *bytes, size_t length, int flags)
{
    if (fd == called && plan->moment == SENT)
        die();
    if (fd == called && plan->moment == ANSWERED) {
        struct pollfd answer = { .fd = fd, .events = POLLIN };
        poll(&answer, 1, -1);
        die();
    }
    ssize_t got = syscall(SYS_recvfrom, fd, bytes, length, flags, NULL, NULL);
    if (fd == called && got > 0)
        die();
    return got;
}

/* Files. */

/* Returns whether the operation fails. Sets errno if it does. */
static int fails(const char *path, int is_sync)
{
    if (plan->mode != FILES || !matches(path))
        return 0;
    if (is_sync && plan->lasting)                /* a full disk fails writes, not syncs */
        return 0;
    uint32_t number = ++plan->seen;
    if (number != plan->nth && !(plan->lasting && number > plan->nth))
        return 0;
    if (plan->error == 0)
        die();
    plan->sync = is_sync;
    plan->struck++;
    errno = plan->error;
    return 1;
}

static int fails_at(int fd, int is_sync)
{
    char path[4096];
    return plan->mode == FILES && path_of(fd, path, sizeof path) && fails(path, is_sync);
}

static int is_meant_wal(int fd)
{
    char path[4096], name[16] = "";
    if ((plan->mode != COMMIT && plan->mode != HOLD) || prctl(PR_GET_NAME, name) != 0 || !matches(name))
        return 0;
    size_t length = path_of(fd, path, sizeof path) ? strlen(path) : 0;
    return length > 4 && strcmp(path + length - 4, "-wal") == 0;
}

/* A commit writes the transaction into the WAL frame by frame (a header of 24 bytes and a page),
 * then syncs it. The WAL's own header, of 32 bytes, is synced separately. */
static void around_frames(int fd, size_t length)
{
    if (!is_meant_wal(fd) || length == 32)
        return;
    if (transaction == 0) {
        transaction = ++plan->seen;
        if (plan->mode == HOLD) {
            while (plan->mode == HOLD && plan->nth < transaction)
                usleep(200);
        } else if (transaction == plan->nth && plan->moment == AHEAD)
            die();
    } else if (transaction == plan->nth && plan->moment == TORN)
        die();
}

static void after_sync(int fd)
{
    if (transaction == 0 || !is_meant_wal(fd))
        return;
    if (transaction == plan->nth && plan->moment == DONE)
        die();
    transaction = 0;
}

ssize_t write(int fd, const void *bytes, size_t length)
{
    if (fails_at(fd, 0))
        return -1;
    around_frames(fd, length);
    return syscall(SYS_write, fd, bytes, length);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at)
{
    if (fails_at(fd, 0))
        return -1;
    around_frames(fd, length);
    return syscall(SYS_pwrite64, fd, bytes, length, at);
}

int fsync(int fd)
{
    if (fails_at(fd, 1))
        return -1;
    int failed = syscall(SYS_fsync, fd);
    after_sync(fd);
    return failed;
}

int fdatasync(int fd) __attribute__((alias("fsync")));

int ftruncate64(int fd, off64_t length)
{
    return fails_at(fd, 0) ? -1 : syscall(SYS_ftruncate, fd, length);
}

int rename(const char *from, const char *to)
{
    return fails(to, 0) ? -1 : syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int open(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    int is_made = flags & O_CREAT && access(path, F_OK) != 0;
    return is_made && fails(path, 0) ? -1 : syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) __attribute__((alias("open")));
