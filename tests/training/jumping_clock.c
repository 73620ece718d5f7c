/* A wall clock that jumps twice a second, hours forwards and days backwards, for a process that preloads it.

   Where it jumps to depends on the monotonic clock, which is left alone, and on CLOCK_JUMPS, a number. Python and the
   C++ of libraries read the time through these functions alike. Where they ask the kernel to wait until a time of this
   clock, the kernel, which knows it not, is told the same moment of its own. */
#include <dlfcn.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const long JUMPS[] = {0, 5 * 3600, -3 * 86400, 3600, 40 * 86400, -7200};

static long (*real(void))(long, ...) {
  static long (*found)(long, ...);
  if (!found) found = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
  return found;
}

static long jump(void) {
  const char *first = getenv("CLOCK_JUMPS");
  struct timespec now;
  real()(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
  return JUMPS[((first ? atol(first) : 0) + 2 * now.tv_sec + now.tv_nsec / 500000000) %
               (sizeof JUMPS / sizeof *JUMPS)];
}

int clock_gettime(clockid_t clock, struct timespec *at) {
  int failed = real()(SYS_clock_gettime, clock, at);
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

/* Returns the kernel's time of a moment of this clock. It is clamped where the clock has jumped since it was read. */
static struct timespec kernels(const struct timespec *at) {
  struct timespec now, then = *at;
  real()(SYS_clock_gettime, CLOCK_REALTIME, &now);
  then.tv_sec -= jump();
  if (then.tv_sec > now.tv_sec + 3600 || then.tv_sec < now.tv_sec - 3600) {
    then = now;
    then.tv_sec += 1;
  }
  return then;
}

long syscall(long number, ...) {
  long a[6];
  va_list arguments;
  va_start(arguments, number);
  for (int i = 0; i < 6; i++) a[i] = va_arg(arguments, long);
  va_end(arguments);
  if (number == SYS_futex && (a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET && (a[1] & FUTEX_CLOCK_REALTIME) && a[3]) {
    struct timespec then = kernels((const struct timespec *)a[3]);
    return real()(number, a[0], a[1], a[2], &then, a[4], a[5]);
  }
  return real()(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *at) {
  struct timespec then = kernels(at);
  return pthread_cond_clockwait(condition, mutex, CLOCK_REALTIME, &then);
}
