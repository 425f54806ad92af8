/* Between a process and its system: counts calls on files, kills, fails and records them.
 *
 * FAULT_ROOTS   directories, with ':' between them; calls elsewhere are passed through unseen.
 * FAULT_PLAN    ACTION:KIND:NUMBER:WHERE - NUMBER counts the calls of KIND ('any': of all kinds
 *               that change something) whose path has WHERE in it, from 1, in each process. ACTION is
 *                 before, after         SIGKILL, before or after that call
 *                 before-all, after-all likewise for the whole process group
 *                 ENOSPC, EDQUOT, EROFS, EIO, ETIMEDOUT   that call fails
 *                 ENOSPC+, ...          that call fails, and all later ones
 * FAULT_FILE    a file that holds the plan instead, as long as it is there; it may come, change
 *               and go at any time, and the counting begins anew.
 * FAULT_LOG     a directory, for one file a process with every operation and its data.
 * FAULT_COUNTS  a directory, for one file a process with the calls of every kind.
 * FAULT_STATFS  the number of the file system that statfs tells of the roots.
 * FAULT_HOSTS   NAME=ADDRESS,... - the addresses of host names; one may have several.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { WRITE, SYNC, OPEN, RENAME, UNLINK, TRUNCATE, MKDIR, SYMLINK, RMDIR, SEND, READ, KINDS };

static const char *const NAMES[KINDS] = {
    "write", "fsync", "open", "rename", "unlink", "ftruncate", "mkdir", "symlink", "rmdir", "send",
    "read",
};

/* What a record begins with; the two paths and the data follow. */
struct record {
    uint64_t at; /* CLOCK_MONOTONIC, nanoseconds: the same for all processes */
    uint64_t inode;
    uint64_t device;
    int64_t offset;
    uint32_t kind;
    uint32_t made; /* of an open: 1 if it made the file, 2 if it emptied it */
    uint32_t path_size;
    uint32_t other_size;
    uint64_t data_size;
};

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static __thread int inside;
static int log_descriptor = -1;
static long counts[KINDS];
static char roots[8][PATH_MAX];
static int roots_count;
static char plan_action[32], plan_kind[32], plan_where[PATH_MAX];
static long plan_number, plan_seen;
static char plan_path[PATH_MAX], plan_text[PATH_MAX];
static char counts_path[PATH_MAX];
static pid_t owner;

static void copy(char *to, size_t size, const char *from) { snprintf(to, size, "%s", from); }

static void open_log(void)
{
    const char *directory = getenv("FAULT_LOG");
    char path[PATH_MAX];
    owner = getpid();
    if (directory != NULL) {
        snprintf(path, sizeof path, "%s/%d", directory, (int)owner);
        log_descriptor = (int)syscall(
            SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    }
    directory = getenv("FAULT_COUNTS");
    if (directory != NULL)
        snprintf(counts_path, sizeof counts_path, "%s/%d", directory, (int)owner);
}

/* Take a plan, unless it is the same as before. */
static void plan(const char *text)
{
    char parts[PATH_MAX], *rest = parts, *part;
    if (!strcmp(text, plan_text))
        return;
    copy(plan_text, sizeof plan_text, text);
    copy(parts, sizeof parts, text);
    plan_seen = plan_number = 0;
    if ((part = strsep(&rest, ":")) != NULL)
        copy(plan_action, sizeof plan_action, part);
    if ((part = strsep(&rest, ":")) != NULL)
        copy(plan_kind, sizeof plan_kind, part);
    if ((part = strsep(&rest, ":")) != NULL)
        plan_number = atol(part);
    copy(plan_where, sizeof plan_where, rest ? rest : "");
}

/* Read the settings; a fork with settings of its own calls it again. */
__attribute__((constructor)) void fault_begin(void)
{
    const char *value = getenv("FAULT_ROOTS");
    roots_count = 0;
    if (value != NULL) {
        char *text = strdup(value), *rest = text, *one;
        while ((one = strsep(&rest, ":")) != NULL && roots_count < 8)
            if (*one)
                copy(roots[roots_count++], PATH_MAX, one);
        free(text);
    }
    value = getenv("FAULT_PLAN");
    if (value != NULL)
        plan(value);
    value = getenv("FAULT_FILE");
    if (value != NULL)
        copy(plan_path, sizeof plan_path, value);
    open_log();
}

__attribute__((destructor)) static void finish(void)
{
    char text[1024] = "";
    int descriptor, kind;
    if (!counts_path[0] || getpid() != owner)
        return;
    for (kind = 0; kind < KINDS; kind++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s %ld\n", NAMES[kind],
                 counts[kind]);
    descriptor = (int)syscall(
        SYS_openat, AT_FDCWD, counts_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (descriptor >= 0) {
        syscall(SYS_write, descriptor, text, strlen(text));
        syscall(SYS_close, descriptor);
    }
}

static void die(int group)
{
    if (group)
        syscall(SYS_kill, 0, SIGKILL);
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;)
        pause();
}

static void path_of(int descriptor, char *path)
{
    char link[64];
    ssize_t size;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    size = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    path[size < 0 ? 0 : size] = 0;
}

static void join(int directory, const char *name, char *path)
{
    char base[PATH_MAX] = "";
    if (name[0] == '/') {
        copy(path, PATH_MAX, name);
        return;
    }
    if (directory == AT_FDCWD) {
        if (getcwd(base, sizeof base) == NULL)
            base[0] = 0;
    } else {
        path_of(directory, base);
    }
    if (snprintf(path, PATH_MAX, "%s/%s", base, name) >= PATH_MAX)
        path[0] = 0;
}

static int below_roots(const char *path)
{
    int i;
    for (i = 0; i < roots_count; i++) {
        size_t size = strlen(roots[i]);
        if (!strncmp(path, roots[i], size) && (path[size] == 0 || path[size] == '/'))
            return 1;
    }
    return 0;
}

static void read_plan(void)
{
    char text[PATH_MAX] = "";
    int descriptor;
    if (!plan_path[0])
        return;
    descriptor = (int)syscall(SYS_openat, AT_FDCWD, plan_path, O_RDONLY | O_CLOEXEC, 0);
    if (descriptor >= 0) {
        syscall(SYS_read, descriptor, text, sizeof text - 1);
        syscall(SYS_close, descriptor);
    }
    plan(text);
}

static int number_of(const char *name)
{
    if (!strncmp(name, "ENOSPC", 6)) return ENOSPC;
    if (!strncmp(name, "EDQUOT", 6)) return EDQUOT;
    if (!strncmp(name, "EROFS", 5)) return EROFS;
    if (!strncmp(name, "EIO", 3)) return EIO;
    if (!strncmp(name, "ETIMEDOUT", 9)) return ETIMEDOUT;
    return 0;
}

/* Holds the lock until `leave`: what is recorded is in the order in which it happened.
 * Returns the error that the call must fail with; *after is set if it is the last one. */
static int enter(enum kind kind, const char *path, int *after)
{
    int error;
    pthread_mutex_lock(&lock);
    inside = 1;
    if (getpid() != owner) { /* a fork that goes on without exec */
        if (log_descriptor >= 0)
            syscall(SYS_close, log_descriptor);
        open_log();
    }
    counts[kind]++;
    *after = 0;
    read_plan();
    if (!plan_number || !strstr(path, plan_where) ||
        (strcmp(plan_kind, NAMES[kind]) && (kind == READ || strcmp(plan_kind, "any"))))
        return 0;
    plan_seen++;
    error = number_of(plan_action);
    if (error)
        return plan_seen == plan_number || (plan_seen > plan_number && strchr(plan_action, '+'))
                   ? error : 0;
    if (plan_seen == plan_number) {
        if (!strncmp(plan_action, "before", 6))
            die(plan_action[6] != 0);
        *after = 1 + (plan_action[5] != 0);
    }
    return 0;
}

static void leave(int after)
{
    int kept = errno;
    if (after)
        die(after == 2);
    inside = 0;
    pthread_mutex_unlock(&lock);
    errno = kept;
}

static void note(enum kind kind, int descriptor, const char *path, const char *other, int made,
                 int64_t offset, const void *data, size_t size)
{
    struct record record = {0};
    struct stat status;
    struct timespec now;
    struct iovec parts[4];
    int kept = errno;
    if (log_descriptor < 0)
        return;
    clock_gettime(CLOCK_MONOTONIC, &now);
    record.at = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    if (descriptor >= 0 ? fstat(descriptor, &status) == 0 : lstat(path, &status) == 0) {
        record.inode = status.st_ino;
        record.device = status.st_dev;
    }
    record.kind = kind;
    record.made = (uint32_t)made;
    record.offset = offset;
    record.path_size = (uint32_t)strlen(path);
    record.other_size = (uint32_t)strlen(other);
    record.data_size = size;
    parts[0] = (struct iovec){&record, sizeof record};
    parts[1] = (struct iovec){(void *)path, record.path_size};
    parts[2] = (struct iovec){(void *)other, record.other_size};
    parts[3] = (struct iovec){(void *)data, size};
    syscall(SYS_writev, log_descriptor, parts, 4);
    errno = kept;
}

/* Data */

static ssize_t written(int descriptor, const void *data, size_t size, off_t offset, int at)
{
    char path[PATH_MAX];
    ssize_t done;
    int error, after;
    int64_t start = offset;
    if (!inside && roots_count)
        path_of(descriptor, path);
    if (inside || !roots_count || !below_roots(path))
        return at ? syscall(SYS_pwrite64, descriptor, data, size, offset)
                  : syscall(SYS_write, descriptor, data, size);
    error = enter(WRITE, path, &after);
    if (error) {
        leave(0);
        errno = error;
        return -1;
    }
    if (!at) {
        int flags = fcntl(descriptor, F_GETFL);
        start = lseek(descriptor, 0, flags >= 0 && flags & O_APPEND ? SEEK_END : SEEK_CUR);
    }
    done = at ? syscall(SYS_pwrite64, descriptor, data, size, offset)
              : syscall(SYS_write, descriptor, data, size);
    if (done > 0)
        note(WRITE, descriptor, path, "", 0, start, data, (size_t)done);
    leave(after);
    return done;
}

ssize_t write(int descriptor, const void *data, size_t size)
{
    return written(descriptor, data, size, 0, 0);
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset)
{
    return written(descriptor, data, size, offset, 1);
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset)
{
    return written(descriptor, data, size, offset, 1);
}

/* Reads are only ever failed; what is read is not noted. */
static ssize_t got(int descriptor, void *data, size_t size, off_t offset, int at)
{
    char path[PATH_MAX];
    int error = 0, after;
    if (!inside && roots_count) {
        path_of(descriptor, path);
        if (below_roots(path)) {
            error = enter(READ, path, &after);
            leave(0);
        }
    }
    if (error) {
        errno = error;
        return -1;
    }
    return at ? syscall(SYS_pread64, descriptor, data, size, offset)
              : syscall(SYS_read, descriptor, data, size);
}

ssize_t read(int descriptor, void *data, size_t size) { return got(descriptor, data, size, 0, 0); }

ssize_t pread(int descriptor, void *data, size_t size, off_t offset)
{
    return got(descriptor, data, size, offset, 1);
}

ssize_t pread64(int descriptor, void *data, size_t size, off64_t offset)
{
    return got(descriptor, data, size, offset, 1);
}

static int truncated(int descriptor, off_t size)
{
    char path[PATH_MAX];
    int done, error, after;
    if (!inside && roots_count)
        path_of(descriptor, path);
    if (inside || !roots_count || !below_roots(path))
        return (int)syscall(SYS_ftruncate, descriptor, size);
    error = enter(TRUNCATE, path, &after);
    if (error) {
        leave(0);
        errno = error;
        return -1;
    }
    done = (int)syscall(SYS_ftruncate, descriptor, size);
    if (!done)
        note(TRUNCATE, descriptor, path, "", 0, size, NULL, 0);
    leave(after);
    return done;
}

int ftruncate(int descriptor, off_t size) { return truncated(descriptor, size); }

int ftruncate64(int descriptor, off64_t size) { return truncated(descriptor, size); }

/* Of `syncfs` the note says "whole": everything on the file system is durable then. */
static int synced(int descriptor, long call)
{
    char path[PATH_MAX];
    int done, error, after;
    if (!inside && roots_count)
        path_of(descriptor, path);
    if (inside || !roots_count || !below_roots(path))
        return (int)syscall(call, descriptor);
    error = enter(SYNC, path, &after);
    if (error) {
        leave(0);
        errno = error;
        return -1;
    }
    done = (int)syscall(call, descriptor);
    if (!done)
        note(SYNC, descriptor, path, call == SYS_syncfs ? "whole" : "", 0, 0, NULL, 0);
    leave(after);
    return done;
}

int syncfs(int descriptor) { return synced(descriptor, SYS_syncfs); }

int fsync(int descriptor) { return synced(descriptor, SYS_fsync); }

int fdatasync(int descriptor) { return synced(descriptor, SYS_fdatasync); }

/* Names */

static int opened(int directory, const char *name, int flags, mode_t mode)
{
    char path[PATH_MAX];
    struct stat before;
    int there, done, error, after;
    if (inside || !roots_count || !(flags & (O_CREAT | O_WRONLY | O_RDWR | O_TRUNC)))
        return (int)syscall(SYS_openat, directory, name, flags, mode);
    join(directory, name, path);
    if (!below_roots(path))
        return (int)syscall(SYS_openat, directory, name, flags, mode);
    error = enter(OPEN, path, &after);
    if (error) {
        leave(0);
        errno = error;
        return -1;
    }
    there = lstat(path, &before) == 0;
    done = (int)syscall(SYS_openat, directory, name, flags, mode);
    if (done >= 0)
        note(OPEN, done, path, "", !there ? 1 : flags & O_TRUNC && before.st_size ? 2 : 0, 0, NULL,
             0);
    leave(after);
    return done;
}

static mode_t mode_of(int flags, va_list arguments)
{
    return flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
    va_list arguments;
    mode_t mode;
    va_start(arguments, flags);
    mode = mode_of(flags, arguments);
    va_end(arguments);
    return opened(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list arguments;
    mode_t mode;
    va_start(arguments, flags);
    mode = mode_of(flags, arguments);
    va_end(arguments);
    return opened(AT_FDCWD, path, flags, mode);
}

int openat(int directory, const char *path, int flags, ...)
{
    va_list arguments;
    mode_t mode;
    va_start(arguments, flags);
    mode = mode_of(flags, arguments);
    va_end(arguments);
    return opened(directory, path, flags, mode);
}

int openat64(int directory, const char *path, int flags, ...)
{
    va_list arguments;
    mode_t mode;
    va_start(arguments, flags);
    mode = mode_of(flags, arguments);
    va_end(arguments);
    return opened(directory, path, flags, mode);
}

/* One call on a name: what `call` does, seen. */
#define NAMED(kind, path, other, call)                        \
    do {                                                      \
        int done, error, after;                               \
        error = enter(kind, path, &after);                    \
        if (error) {                                          \
            leave(0);                                         \
            errno = error;                                    \
            return -1;                                        \
        }                                                     \
        done = (int)(call);                                   \
        if (!done)                                            \
            note(kind, -1, path, other, 0, 0, NULL, 0);       \
        leave(after);                                         \
        return done;                                          \
    } while (0)

static int renamed(int from, const char *old, int to, const char *new, unsigned flags)
{
    char path[PATH_MAX], other[PATH_MAX];
    if (inside || !roots_count)
        return (int)syscall(SYS_renameat2, from, old, to, new, flags);
    join(from, old, path);
    join(to, new, other);
    if (!below_roots(path))
        return (int)syscall(SYS_renameat2, from, old, to, new, flags);
    NAMED(RENAME, path, other, syscall(SYS_renameat2, from, old, to, new, flags));
}

int rename(const char *old, const char *new) { return renamed(AT_FDCWD, old, AT_FDCWD, new, 0); }

int renameat(int from, const char *old, int to, const char *new)
{
    return renamed(from, old, to, new, 0);
}

int renameat2(int from, const char *old, int to, const char *new, unsigned flags)
{
    return renamed(from, old, to, new, flags);
}

static int unlinked(int directory, const char *name, int flags)
{
    char path[PATH_MAX];
    if (inside || !roots_count)
        return (int)syscall(SYS_unlinkat, directory, name, flags);
    join(directory, name, path);
    if (!below_roots(path))
        return (int)syscall(SYS_unlinkat, directory, name, flags);
    NAMED(flags & AT_REMOVEDIR ? RMDIR : UNLINK, path, "",
          syscall(SYS_unlinkat, directory, name, flags));
}

int unlink(const char *path) { return unlinked(AT_FDCWD, path, 0); }

int unlinkat(int directory, const char *path, int flags)
{
    return unlinked(directory, path, flags);
}

int rmdir(const char *path) { return unlinked(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int directory, const char *name, mode_t mode)
{
    char path[PATH_MAX];
    if (inside || !roots_count)
        return (int)syscall(SYS_mkdirat, directory, name, mode);
    join(directory, name, path);
    if (!below_roots(path))
        return (int)syscall(SYS_mkdirat, directory, name, mode);
    NAMED(MKDIR, path, "", syscall(SYS_mkdirat, directory, name, mode));
}

int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int symlinkat(const char *target, int directory, const char *name)
{
    char path[PATH_MAX];
    if (inside || !roots_count)
        return (int)syscall(SYS_symlinkat, target, directory, name);
    join(directory, name, path);
    if (!below_roots(path))
        return (int)syscall(SYS_symlinkat, target, directory, name);
    NAMED(SYMLINK, path, target, syscall(SYS_symlinkat, target, directory, name));
}

int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }

/* Python calls neither by itself. */
int statfs(const char *path, struct statfs *answer)
{
    const char *number = getenv("FAULT_STATFS");
    int done = (int)syscall(SYS_statfs, path, answer);
    if (!done && number != NULL && below_roots(path))
        answer->f_type = strtol(number, NULL, 0);
    return done;
}

int statfs64(const char *path, struct statfs64 *answer)
{
    return statfs(path, (struct statfs *)answer); /* the same on 64 bits */
}

/* Names of hosts */

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **found)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    const char *hosts = getenv("FAULT_HOSTS");
    char text[PATH_MAX], *rest = text, *one, *address;
    int known = 0, family = hints ? hints->ai_family : AF_UNSPEC;
    struct addrinfo **end = found;
    *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    copy(text, sizeof text, name && hosts ? hosts : "");
    *found = NULL;
    while ((one = strsep(&rest, ",")) != NULL) {
        address = one;
        if (!*one || strcmp(strsep(&address, "="), name))
            continue;
        known = 1;
        if (family != AF_UNSPEC && family != (strchr(address, ':') ? AF_INET6 : AF_INET))
            continue;
        if (!real(address, service, hints, end))
            while (*end != NULL)
                end = &(*end)->ai_next;
    }
    if (!known)
        return real(name, service, hints, found);
    return *found != NULL ? 0 : EAI_NONAME;
}

/* Sockets: only to be killed around; what is sent through them is not of the file system. */

ssize_t sendmsg(int descriptor, const struct msghdr *message, int flags)
{
    ssize_t done;
    int after = 0;
    if (inside || !roots_count || plan_path[0])
        return syscall(SYS_sendmsg, descriptor, message, flags);
    enter(SEND, "", &after);
    done = syscall(SYS_sendmsg, descriptor, message, flags);
    leave(after);
    return done;
}

ssize_t send(int descriptor, const void *data, size_t size, int flags)
{
    ssize_t done;
    int after = 0;
    if (inside || !roots_count || plan_path[0])
        return syscall(SYS_sendto, descriptor, data, size, flags, NULL, 0);
    enter(SEND, "", &after);
    done = syscall(SYS_sendto, descriptor, data, size, flags, NULL, 0);
    leave(after);
    return done;
}
