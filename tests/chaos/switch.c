/* switch NAMESPACE=ADDRESS... : the network between namespaces of members and clients, with faults.
 *
 * Each namespace has a TUN device; what it sends comes here, and goes on to the namespace that has the destination address: at once, late,
 * twice, out of order, or never, as the link between the two says. The kernel's TCP is real on both ends.
 *
 * Commands, a line each, on standard input ("ok" or "no <why>" answers each):
 *   link FROM TO key=value...    FROM and TO are places in the argument list, from 0, or *; one direction. Keys: cut=0|1, loss=PERMILLE,
 *                                duplicate=PERMILLE, delay=MS, jitter=MS (a packet may overtake others), rate=KBYTES_PER_SECOND (0 = any)
 *   clear                        all links as they were at first
 *   seed N
 * Ends when standard input does. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { NODES_MAX = 12, PACKET_MAX = 65536, QUEUE_MAX = 20000, MTU = 16000 };

struct link {
    bool cut;
    unsigned loss, duplicate, delay_ms, jitter_ms, rate;
    uint64_t busy_until_us; /* when all that was sent at `rate` has gone */
};

struct packet {
    uint64_t due_us, order;
    int to;
    size_t len;
    unsigned char *data;
};

static struct node {
    uint32_t address;
    int fd;
} nodes[NODES_MAX];
static int n_nodes;
static struct link links[NODES_MAX][NODES_MAX];
static struct packet *queue; /* a heap by due time */
static size_t n_queue;
static uint64_t random_state = 1, orders, forwarded, dropped;

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static unsigned below(unsigned n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return n ? (unsigned)(random_state >> 11) % n : 0;
}

/* ---- packets that wait ----------------------------------------------------------------------------------- */

static bool sooner(const struct packet *a, const struct packet *b)
{
    return a->due_us != b->due_us ? a->due_us < b->due_us : a->order < b->order;
}

static void swap(size_t a, size_t b)
{
    struct packet p = queue[a];
    queue[a] = queue[b];
    queue[b] = p;
}

static void push(struct packet p)
{
    size_t i = n_queue++;
    queue[i] = p;
    for (; i > 0 && sooner(&queue[i], &queue[(i - 1) / 2]); i = (i - 1) / 2) swap(i, (i - 1) / 2);
}

static struct packet pop(void)
{
    struct packet p = queue[0];
    queue[0] = queue[--n_queue];
    for (size_t i = 0, c; (c = 2 * i + 1) < n_queue; i = c) {
        if (c + 1 < n_queue && sooner(&queue[c + 1], &queue[c])) c++;
        if (!sooner(&queue[c], &queue[i])) break;
        swap(i, c);
    }
    return p;
}

static void deliver(int to, const unsigned char *data, size_t len)
{
    ssize_t n = write(nodes[to].fd, data, len); /* a full device drops it, as a wire would */
    if (n == (ssize_t)len) forwarded++;
    else dropped++;
}

static void send_once(struct link *l, int to, const unsigned char *data, size_t len)
{
    uint64_t now = now_us(), due = now;
    if (l->rate) {
        if (l->busy_until_us < now) l->busy_until_us = now;
        l->busy_until_us += len * 1000 / l->rate;
        due = l->busy_until_us;
    }
    due += l->delay_ms * 1000 + below(l->jitter_ms * 1000);
    if (due == now && n_queue == 0) {
        deliver(to, data, len);
        return;
    }
    if (n_queue == QUEUE_MAX) {
        dropped++;
        return;
    }
    struct packet p = {due, ++orders, to, len, malloc(len)};
    if (!p.data) abort();
    memcpy(p.data, data, len);
    push(p);
}

static void forward(int from, const unsigned char *data, size_t len)
{
    uint32_t to_address;
    if (len < 20 || data[0] >> 4 != 4) return;
    memcpy(&to_address, data + 16, 4);
    for (int to = 0; to < n_nodes; to++) {
        struct link *l = &links[from][to];
        if (nodes[to].address != to_address) continue;
        if (l->cut || below(1000) < l->loss) {
            dropped++;
            return;
        }
        send_once(l, to, data, len);
        if (below(1000) < l->duplicate) send_once(l, to, data, len);
        return;
    }
}

/* ---- namespaces --------------------------------------------------------------------------------------------- */

static int fail(const char *what, const char *name)
{
    fprintf(stderr, "switch: %s %s: %s\n", what, name, strerror(errno));
    return -1;
}

static int configure(const char *name, uint32_t address)
{
    struct ifreq r = {0};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = address};
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (s < 0) return fail("socket", name);
    strcpy(r.ifr_name, "lo");
    r.ifr_flags = IFF_UP | IFF_RUNNING;
    int rv = ioctl(s, SIOCSIFFLAGS, &r);
    strcpy(r.ifr_name, "net");
    memcpy(&r.ifr_addr, &in, sizeof(in));
    if (rv == 0) rv = ioctl(s, SIOCSIFADDR, &r);
    in.sin_addr.s_addr = htonl(0xffffff00);
    memcpy(&r.ifr_netmask, &in, sizeof(in));
    if (rv == 0) rv = ioctl(s, SIOCSIFNETMASK, &r);
    r.ifr_mtu = MTU;
    if (rv == 0) rv = ioctl(s, SIOCSIFMTU, &r);
    r.ifr_flags = IFF_UP | IFF_RUNNING;
    if (rv == 0) rv = ioctl(s, SIOCSIFFLAGS, &r);
    if (rv != 0) fail("cannot configure the device in", name);
    close(s);
    return rv;
}

/* A device in the namespace, the other end of which is `ret_fd`. */
static int attach(const char *name, uint32_t address, int *ret_fd)
{
    char path[256];
    snprintf(path, sizeof(path), "/run/netns/%s", name);
    int ns = open(path, O_RDONLY | O_CLOEXEC);
    if (ns < 0 || setns(ns, CLONE_NEWNET) != 0) return fail("cannot enter namespace", name);
    close(ns);
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return fail("open", "/dev/net/tun");
    struct ifreq r = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    strcpy(r.ifr_name, "net");
    if (ioctl(fd, TUNSETIFF, &r) != 0) return fail("cannot make a TUN device in", name);
    *ret_fd = fd;
    return configure(name, address);
}

/* ---- commands --------------------------------------------------------------------------------------------------- */

static bool set(struct link *l, const char *word)
{
    unsigned v;
    if (sscanf(word, "cut=%u", &v) == 1) l->cut = v;
    else if (sscanf(word, "loss=%u", &v) == 1) l->loss = v;
    else if (sscanf(word, "duplicate=%u", &v) == 1) l->duplicate = v;
    else if (sscanf(word, "delay=%u", &v) == 1) l->delay_ms = v;
    else if (sscanf(word, "jitter=%u", &v) == 1) l->jitter_ms = v;
    else if (sscanf(word, "rate=%u", &v) == 1) l->rate = v;
    else return false;
    return true;
}

static bool set_links(char *words)
{
    char *save = NULL, *from = strtok_r(words, " ", &save), *to = strtok_r(NULL, " ", &save);
    if (!from || !to) return false;
    for (char *w = strtok_r(NULL, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        for (int i = 0; i < n_nodes; i++)
            for (int k = 0; k < n_nodes; k++)
                if ((*from == '*' || atoi(from) == i) && (*to == '*' || atoi(to) == k) && !set(&links[i][k], w)) return false;
    }
    return true;
}

static void obey(char *line)
{
    bool ok = true;
    if (!strncmp(line, "link ", 5)) ok = set_links(line + 5);
    else if (!strcmp(line, "clear")) memset(links, 0, sizeof(links));
    else if (!strncmp(line, "seed ", 5)) random_state = strtoull(line + 5, NULL, 10) * 2 + 1;
    else ok = false;
    if (ok) printf("ok %llu %llu\n", (unsigned long long)forwarded, (unsigned long long)dropped);
    else printf("no such command\n");
    fflush(stdout);
}

static bool commands(void)
{
    static char text[4096];
    static size_t len;
    char *end;
    ssize_t n = read(0, text + len, sizeof(text) - 1 - len);
    if (n <= 0) return false;
    len += (size_t)n;
    text[len] = 0;
    while ((end = strchr(text, '\n'))) {
        *end = 0;
        obey(text);
        len -= (size_t)(end + 1 - text);
        memmove(text, end + 1, len + 1);
    }
    return len < sizeof(text) - 1;
}

static void turn(struct pollfd *fds)
{
    static unsigned char data[PACKET_MAX];
    for (int i = 0; i < n_nodes; i++) {
        ssize_t n;
        if (!(fds[i + 1].revents & POLLIN)) continue;
        for (int k = 0; k < 64 && (n = read(nodes[i].fd, data, sizeof(data))) > 0; k++) forward(i, data, (size_t)n);
    }
    while (n_queue && queue[0].due_us <= now_us()) {
        struct packet p = pop();
        deliver(p.to, p.data, p.len);
        free(p.data);
    }
}

int main(int argc, char **argv)
{
    struct pollfd fds[NODES_MAX + 1] = {{.fd = 0, .events = POLLIN}};
    queue = malloc(QUEUE_MAX * sizeof(*queue));
    if (!queue || argc < 2 || argc > NODES_MAX + 1) {
        fprintf(stderr, "switch NAMESPACE=ADDRESS...\n");
        return 2;
    }
    for (n_nodes = 0; n_nodes < argc - 1; n_nodes++) {
        char *name = argv[n_nodes + 1], *address = strchr(name, '=');
        if (!address) return 2;
        *address++ = 0;
        nodes[n_nodes].address = inet_addr(address);
        if (attach(name, nodes[n_nodes].address, &nodes[n_nodes].fd) != 0) return 1;
        fds[n_nodes + 1] = (struct pollfd){.fd = nodes[n_nodes].fd, .events = POLLIN};
    }
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        int wait_ms = -1;
        if (n_queue) {
            uint64_t now = now_us();
            wait_ms = queue[0].due_us <= now ? 0 : (int)((queue[0].due_us - now + 999) / 1000);
        }
        if (poll(fds, (nfds_t)n_nodes + 1, wait_ms) < 0 && errno != EINTR) return fail("poll", "") ? 1 : 1;
        if ((fds[0].revents & (POLLIN | POLLHUP)) && !commands()) return 0;
        turn(fds);
    }
}
