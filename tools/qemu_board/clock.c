/* A wrong wall clock for one board: shifts CLOCK_REALTIME by the seconds in the shared file.
   Preloaded on the board; the file is mapped, so a change reaches running processes at once.
   Monotonic clocks and the file system's times are the kernel's own. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset_s;

static int64_t offset(void) {
  static volatile int opened;
  if (!opened) {
    int fd = open("/var/lib/board-clock", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
      void *page = mmap(NULL, sizeof *offset_s, PROT_READ, MAP_SHARED, fd, 0);
      if (page != MAP_FAILED) offset_s = page;
      close(fd);
    }
    opened = 1;
  }
  return offset_s ? *offset_s : 0;
}

int clock_gettime(clockid_t id, struct timespec *now) {
  int status = (int)syscall(SYS_clock_gettime, id, now);
  if (status == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += offset();
  return status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  int status = (int)syscall(SYS_gettimeofday, now, zone);
  if (status == 0 && now) now->tv_sec += offset();
  return status;
}

time_t time(time_t *where) {
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now)) return (time_t)-1;
  if (where) *where = now.tv_sec;
  return now.tv_sec;
}
