/* fsync(2) and fdatasync(2) that take longer, for LD_PRELOAD: by as many microseconds as the 32-bit number says that
   the file SYNC_DELAY_FILE begins with, at that moment. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile const uint32_t *delay;
static int (*sync_all)(int), (*sync_data)(int);

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("SYNC_DELAY_FILE");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    sync_all = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    sync_data = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    if (fd < 0)
        return;
    void *mapped = mmap(NULL, sizeof *delay, PROT_READ, MAP_SHARED, fd, 0);
    if (mapped != MAP_FAILED)
        delay = mapped;
    close(fd);
}

static int later(int result)
{
    int said = errno;
    if (delay && *delay)
        usleep(*delay);
    errno = said;
    return result;
}

int fsync(int fd) { return later(sync_all(fd)); }
int fdatasync(int fd) { return later(sync_data(fd)); }
