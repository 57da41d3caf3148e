/* What the servers of local endpoints used: found by their listening ports in /proc, so that any server can be measured. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/url.h"
#include "bench/bench_int.h"

/* The socket inodes that listen on `port`. */
static size_t listening_inodes(const char *file, int port, unsigned long *ret, size_t max)
{
    char line[512];
    size_t n = 0;
    FILE *f = fopen(file, "re");
    if (!f) return 0;
    while (fgets(line, sizeof(line), f) && n < max) {
        unsigned local_port, state;
        unsigned long inode;
        if (sscanf(line, " %*d: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*s %*s %*s %*s %*s %lu", &local_port, &state, &inode) != 3) continue;
        if (state == 0x0a && (int)local_port == port) ret[n++] = inode;
    }
    fclose(f);
    return n;
}

static bool process_has(const char *pid, const unsigned long *inodes, size_t n)
{
    char dir[300], path[600], target[64];
    snprintf(dir, sizeof(dir), "/proc/%s/fd", pid);
    DIR *d = opendir(dir);
    bool found = false;
    const struct dirent *e;
    while (d && !found && (e = readdir(d)) != NULL) {
        unsigned long inode;
        snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        ssize_t len = readlink(path, target, sizeof(target) - 1);
        if (len <= 0) continue;
        target[len] = 0;
        if (sscanf(target, "socket:[%lu]", &inode) != 1) continue;
        for (size_t i = 0; i < n; i++) found = found || inodes[i] == inode;
    }
    if (d) closedir(d);
    return found;
}

size_t cpu_find_servers(const struct bench *b, int *pids, size_t max)
{
    unsigned long inodes[128];
    size_t n = 0, found = 0;
    for (size_t i = 0; i < b->n_endpoints; i++) {
        struct url url;
        if (url_parse(b->endpoints[i], &url, NULL) != 0 || n > 100) continue;
        n += listening_inodes("/proc/net/tcp", url.port, inodes + n, 8);
        n += listening_inodes("/proc/net/tcp6", url.port, inodes + n, 8);
    }
    DIR *d = opendir("/proc");
    const struct dirent *e;
    while (d && (e = readdir(d)) != NULL && found < max)
        if (e->d_name[0] >= '0' && e->d_name[0] <= '9' && process_has(e->d_name, inodes, n)) pids[found++] = atoi(e->d_name);
    if (d) closedir(d);
    return found;
}

uint64_t cpu_used_us(const int *pids, size_t n)
{
    uint64_t ticks = 0;
    for (size_t i = 0; i < n; i++) {
        char path[64], text[1024];
        unsigned long long user = 0, system = 0;
        snprintf(path, sizeof(path), "/proc/%d/stat", pids[i]);
        FILE *f = fopen(path, "re");
        if (!f) continue;
        size_t len = fread(text, 1, sizeof(text) - 1, f);
        fclose(f);
        text[len] = 0;
        const char *after = strrchr(text, ')');
        if (after && sscanf(after + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system) == 2) ticks += user + system;
    }
    return ticks * 1000000u / (uint64_t)sysconf(_SC_CLK_TCK);
}

uint64_t cpu_rss(const int *pids, size_t n)
{
    uint64_t pages = 0;
    for (size_t i = 0; i < n; i++) {
        char path[64];
        unsigned long long total, resident;
        snprintf(path, sizeof(path), "/proc/%d/statm", pids[i]);
        FILE *f = fopen(path, "re");
        if (!f) continue;
        if (fscanf(f, "%llu %llu", &total, &resident) == 2) pages += resident;
        fclose(f);
    }
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}
