/* A wall clock that jumps twice a second, hours forwards and days backwards, for a process that preloads it.

   Where it jumps to depends on the monotonic clock, which is left alone, and on CLOCK_JUMPS, a number. Python and the
   C++ of libraries read the time through these functions alike. */
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const long JUMPS[] = {0, 5 * 3600, -3 * 86400, 3600, 40 * 86400, -7200};

static long jump(void) {
  const char *first = getenv("CLOCK_JUMPS");
  struct timespec now;
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
  return JUMPS[((first ? atol(first) : 0) + 2 * now.tv_sec + now.tv_nsec / 500000000) %
               (sizeof JUMPS / sizeof *JUMPS)];
}

int clock_gettime(clockid_t clock, struct timespec *at) {
  int failed = syscall(SYS_clock_gettime, clock, at);
  if (!failed && clock == CLOCK_REALTIME) at->tv_sec += jump();
  return failed;
}

int gettimeofday(struct timeval *at, void *zone) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
