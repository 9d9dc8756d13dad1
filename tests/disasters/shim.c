/* Preloaded into the service (LD_PRELOAD) by scripts/disasters. It stands between SQLite and the disk:
 *
 * - It records each write, truncation, sync and deletion of the files in KAIROS_SHIM_FOLDER in the file
 *   KAIROS_SHIM_RECORD, from which disk.py builds what a power cut leaves. While it records, a sync does not
 *   wait for the real disk.
 * - It makes such an operation fail with a chosen error.
 * - It adds an offset to the wall clock.
 *
 * KAIROS_SHIM_CONTROL names a file with the values of `struct control`, which the scenario changes while the
 * service runs. SQLite is linked statically, but calls these functions of the C library. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* All values are 64 bits wide and in this order in disk.py. */
struct control {
  int64_t clock_offset_ns;
  int64_t failing;    /* which operations fail: a sum of the values of `enum kind` */
  int64_t fail_after; /* so many of these operations succeed first */
  int64_t fail_count; /* so many fail then; -1: all */
  int64_t fail_errno;
  int64_t failed;     /* operations that have failed */
  int64_t writes;     /* operations so far */
  int64_t syncs;
};

enum kind { WRITE = 1, SYNC = 2, TRUNCATE = 4 };
enum record { RECORD_OPEN = 1, RECORD_WRITE, RECORD_TRUNCATE, RECORD_SYNC, RECORD_UNLINK, RECORD_SYNC_FOLDER };

struct header {
  int64_t time_ns; /* CLOCK_MONOTONIC */
  int64_t offset;
  uint64_t length; /* of the bytes that follow */
  uint32_t record;
  uint32_t file;
};

#define FILES_MAX 4096
#define FOLDER UINT32_MAX

static struct control *control;
static char folder[4096];
static size_t folder_length;
static int record_fd = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t file_of_fd[65536]; /* 0: a file that is not watched */
static char *paths[FILES_MAX];     /* by file; NULL once it is deleted */
static uint32_t files = 1;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("KAIROS_SHIM_CONTROL");
  if (!path) return;
  int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
  if (fd < 0) abort();
  void *map = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  syscall(SYS_close, fd);
  if (map == MAP_FAILED) abort();
  const char *watched = getenv("KAIROS_SHIM_FOLDER");
  if (watched) {
    strncpy(folder, watched, sizeof folder - 1);
    folder_length = strlen(folder);
  }
  const char *record = getenv("KAIROS_SHIM_RECORD");
  if (record) {
    record_fd = syscall(SYS_openat, AT_FDCWD, record, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (record_fd < 0) abort();
  }
  control = map;
}

static int64_t monotonic(void) {
  struct timespec now;
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* The caller holds the lock, so that the order of the record is the order of the operations. */
static void record(enum record what, uint32_t file, int64_t offset, const void *bytes, uint64_t length) {
  if (record_fd < 0) return;
  struct header header = {monotonic(), offset, length, what, file};
  struct iovec parts[2] = {{&header, sizeof header}, {(void *)bytes, length}};
  if (syscall(SYS_writev, record_fd, parts, 2) != (long)(sizeof header + length)) abort();
}

static uint32_t file_of(int fd) {
  return control && fd >= 0 && fd < 65536 ? __atomic_load_n(&file_of_fd[fd], __ATOMIC_RELAXED) : 0;
}

/* True if this operation must fail; sets errno. */
static int must_fail(enum kind kind) {
  if (!(__atomic_load_n(&control->failing, __ATOMIC_SEQ_CST) & kind)) return 0;
  if (__atomic_fetch_sub(&control->fail_after, 1, __ATOMIC_SEQ_CST) > 0) return 0;
  if (__atomic_load_n(&control->fail_count, __ATOMIC_SEQ_CST) == 0) return 0;
  if (__atomic_load_n(&control->fail_count, __ATOMIC_SEQ_CST) > 0)
    __atomic_fetch_sub(&control->fail_count, 1, __ATOMIC_SEQ_CST);
  __atomic_fetch_add(&control->failed, 1, __ATOMIC_SEQ_CST);
  errno = (int)control->fail_errno;
  return 1;
}

static void opened(int fd, const char *path, int flags) {
  if (!control || !folder_length || fd < 0 || fd >= 65536 || strncmp(path, folder, folder_length) != 0) return;
  const char *rest = path + folder_length;
  uint32_t file = 0;
  pthread_mutex_lock(&lock);
  if (*rest == '\0') {
    file = FOLDER;
  } else if (*rest == '/' && !(strlen(rest) > 4 && strcmp(rest + strlen(rest) - 4, "-shm") == 0)) {
    for (uint32_t known = 1; known < files && !file; known++)
      if (paths[known] && strcmp(paths[known], path) == 0) file = known;
    if (!file) {
      if (files == FILES_MAX) abort();
      file = files++;
      paths[file] = strdup(path);
      record(RECORD_OPEN, file, 0, rest + 1, strlen(rest + 1));
    }
    if (flags & O_TRUNC) record(RECORD_TRUNCATE, file, 0, NULL, 0);
  }
  __atomic_store_n(&file_of_fd[fd], file, __ATOMIC_RELAXED);
  pthread_mutex_unlock(&lock);
}

static int open_at(int folder_fd, const char *path, int flags, va_list arguments) {
  mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
  int fd = syscall(SYS_openat, folder_fd, path, flags, mode);
  opened(fd, path, flags);
  return fd;
}

#define OPEN(name, parameters, folder_fd) \
  int name parameters { \
    va_list arguments; \
    va_start(arguments, flags); \
    int fd = open_at(folder_fd, path, flags, arguments); \
    va_end(arguments); \
    return fd; \
  }
OPEN(open, (const char *path, int flags, ...), AT_FDCWD)
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD)
OPEN(openat, (int at, const char *path, int flags, ...), at)
OPEN(openat64, (int at, const char *path, int flags, ...), at)

int close(int fd) {
  if (file_of(fd)) __atomic_store_n(&file_of_fd[fd], 0, __ATOMIC_RELAXED);
  return syscall(SYS_close, fd);
}

static ssize_t written(int fd, uint32_t file, const void *bytes, size_t length, off64_t offset) {
  if (must_fail(WRITE)) return -1;
  pthread_mutex_lock(&lock);
  __atomic_fetch_add(&control->writes, 1, __ATOMIC_RELAXED);
  ssize_t result = syscall(SYS_pwrite64, fd, bytes, length, offset);
  if (result > 0) record(RECORD_WRITE, file, offset, bytes, result);
  pthread_mutex_unlock(&lock);
  return result;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
  uint32_t file = file_of(fd);
  return file ? written(fd, file, bytes, length, offset) : syscall(SYS_pwrite64, fd, bytes, length, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return pwrite64(fd, bytes, length, offset); }

ssize_t write(int fd, const void *bytes, size_t length) {
  uint32_t file = file_of(fd);
  if (!file) return syscall(SYS_write, fd, bytes, length);
  off64_t offset = syscall(SYS_lseek, fd, 0, SEEK_CUR);
  ssize_t result = written(fd, file, bytes, length, offset);
  if (result > 0) syscall(SYS_lseek, fd, offset + result, SEEK_SET);
  return result;
}

int ftruncate64(int fd, off64_t length) {
  uint32_t file = file_of(fd);
  if (!file) return syscall(SYS_ftruncate, fd, length);
  if (must_fail(TRUNCATE)) return -1;
  pthread_mutex_lock(&lock);
  int result = syscall(SYS_ftruncate, fd, length);
  if (result == 0) record(RECORD_TRUNCATE, file, length, NULL, 0);
  pthread_mutex_unlock(&lock);
  return result;
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

static int synced(int fd, long call) {
  uint32_t file = file_of(fd);
  if (!file) return syscall(call, fd);
  if (must_fail(SYNC)) return -1;
  /* Recorded only once it is done. Nothing written meanwhile counts as synced: it has the same lock. */
  pthread_mutex_lock(&lock);
  __atomic_fetch_add(&control->syncs, 1, __ATOMIC_RELAXED);
  int result = record_fd < 0 ? syscall(call, fd) : 0;
  if (result == 0) record(file == FOLDER ? RECORD_SYNC_FOLDER : RECORD_SYNC, file, 0, NULL, 0);
  pthread_mutex_unlock(&lock);
  return result;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }

int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int unlink(const char *path) {
  pthread_mutex_lock(&lock);
  int result = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
  for (uint32_t file = 1; result == 0 && file < files; file++)
    if (paths[file] && strcmp(paths[file], path) == 0) {
      record(RECORD_UNLINK, file, 0, NULL, 0);
      paths[file] = NULL;
    }
  pthread_mutex_unlock(&lock);
  return result;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  int result = syscall(SYS_clock_gettime, clock, time);
  if (result == 0 && control && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    int64_t nanoseconds = time->tv_nsec + control->clock_offset_ns % 1000000000;
    time->tv_sec += control->clock_offset_ns / 1000000000;
    if (nanoseconds < 0) nanoseconds += 1000000000, time->tv_sec--;
    if (nanoseconds >= 1000000000) nanoseconds -= 1000000000, time->tv_sec++;
    time->tv_nsec = nanoseconds;
  }
  return result;
}
