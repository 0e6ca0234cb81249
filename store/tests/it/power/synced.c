/* Loaded before the C library: keeps a copy of each database file as it was when it was last synced. What a loss of
   power may cost is all the rest, so the copies are the worst that can be left of a machine. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int keep(int fd) {
  char link[64], path[4000] = {0}, part[4096], done[4096], buffer[1 << 16];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  if (readlink(link, path, sizeof path - 1) < 0 || !strstr(path, "/hotbed.db")) return 0;
  snprintf(part, sizeof part, "%s.part.%ld", path, (long)syscall(SYS_gettid));
  snprintf(done, sizeof done, "%s.synced", path);
  int out = open(part, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (out < 0) return -1;
  off_t at = 0;
  ssize_t n;
  while ((n = pread(fd, buffer, sizeof buffer, at)) > 0) {
    if (write(out, buffer, n) != n) n = -1;
    if (n < 0) break;
    at += n;
  }
  close(out);
  return n < 0 ? -1 : rename(part, done);
}

int fsync(int fd) { return keep(fd); }
int fdatasync(int fd) { return keep(fd); }
