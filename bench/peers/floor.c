/*
 * The floor of the model: what a process per connection costs when nothing else does. A fork for each
 * connection, a pipe up and a pipe down for each fork. The parent waits with epoll and relays blocks
 * of whole lines, unparsed; a child waits with poll, reads and writes. It promises nothing but that no
 * line is lost: a client that does not read stops everyone.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { BLOCK = 65536, NAME = 64, MOST = 4096 };

static struct member {
    int up, down; /* the pipes from and to the child */
    size_t held;  /* bytes in block: a line that has begun */
    char block[BLOCK];
} *members[MOST];
typedef struct member Member;
static int count, listener, loop;

/* One direction in a child: what was read from `from` and is not yet written to `to`. */
typedef struct {
    int from, to;
    size_t start, end;
    char bytes[BLOCK * (NAME + 2)];
} Flow;

/* Puts the name before each whole line of `in`; gives the bytes that it used. */
static size_t say(const char *name, size_t length, const char *in, size_t size, Flow *up) {
    size_t used = 0;
    for (const char *end; (end = memchr(in + used, '\n', size - used)); used = end + 1 - in) {
        memcpy(up->bytes + up->end, name, length);
        memcpy(up->bytes + up->end + length, in + used, end + 1 - in - used);
        up->end += length + (end + 1 - in - used);
    }
    return used;
}

/* Writes what it can; the rest keeps its place until poll says that there is room. */
static void push(Flow *flow) {
    ssize_t n = write(flow->to, flow->bytes + flow->start, flow->end - flow->start);
    if (n < 0 && errno != EAGAIN) _exit(0);
    if (n > 0) flow->start += n;
    if (flow->start == flow->end) flow->start = flow->end = 0;
}

/* A child: relays between its client and the parent, each way at its own pace, until one has ended. */
static void serve(int client, int up_pipe, int down_pipe) {
    static Flow up, down;
    static char in[BLOCK], name[NAME + 2];
    size_t held = 0, length = 0;
    up.from = down.to = client, up.to = up_pipe, down.from = down_pipe;
    for (;;) {
        struct pollfd ready[] = {
            up.end ? (struct pollfd){up.to, POLLOUT, 0} : (struct pollfd){up.from, POLLIN, 0},
            down.end ? (struct pollfd){down.to, POLLOUT, 0} : (struct pollfd){down.from, POLLIN, 0},
        };
        poll(ready, 2, -1);
        if (ready[1].revents && !down.end) {
            ssize_t n = read(down.from, down.bytes, BLOCK);
            if (n <= 0) _exit(0);
            down.end = n;
        }
        if (ready[1].revents) push(&down);
        if (ready[0].revents && !up.end) {
            ssize_t n = read(up.from, in + held, BLOCK - held);
            if (n <= 0) _exit(0);
            held += n;
            size_t used = 0;
            char *end = memchr(in, '\n', held);
            if (!length && end) {
                used = end + 1 - in;
                length = snprintf(name, sizeof name, "%.*s: ", (int)(end - in < NAME ? end - in : NAME), in);
            }
            if (length) used += say(name, length, in + used, held - used, &up);
            memmove(in, in + used, held -= used);
            if (held == BLOCK) _exit(1);
        }
        if (ready[0].revents && up.end) push(&up);
    }
}

static void accept_client(void) {
    int client = accept(listener, NULL, NULL), up[2], down[2], on = 1;
    if (client < 0) return;
    if (count == MOST || pipe(up) || pipe(down)) exit(1);
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    pid_t child = fork();
    if (child < 0) exit(1);
    if (child == 0) {
        signal(SIGPIPE, SIG_DFL);
        /* A pipe ends when its last writer has closed it: a child keeps none but its own. */
        for (int i = 0; i < count; i++) close(members[i]->up), close(members[i]->down);
        close(listener), close(loop), close(up[0]), close(down[1]);
        fcntl(client, F_SETFL, O_NONBLOCK);
        fcntl(up[1], F_SETFL, O_NONBLOCK);
        serve(client, up[1], down[0]);
    }
    close(client), close(up[1]), close(down[0]);
    Member *member = calloc(1, sizeof *member);
    member->up = up[0], member->down = down[1];
    members[count++] = member;
    epoll_ctl(loop, EPOLL_CTL_ADD, up[0], &(struct epoll_event){EPOLLIN, {.ptr = member}});
}

/* Writes to a child, however long it takes: its client reads, or the floor has no bottom. */
static void deliver(Member *member, const char *block, size_t size) {
    for (ssize_t n; size && (n = write(member->down, block, size)) > 0; size -= n) block += n;
}

/* Takes what a child says up to its last newline, and gives it to all the others. */
static void relay(Member *sender) {
    ssize_t n = read(sender->up, sender->block + sender->held, BLOCK - sender->held);
    if (n <= 0) {
        /* Its pipe stays in epoll for as long as a child that was just forked has a copy of it. */
        epoll_ctl(loop, EPOLL_CTL_DEL, sender->up, NULL);
        close(sender->up), close(sender->down);
        for (int i = 0; i < count; i++)
            if (members[i] == sender) members[i--] = members[--count];
        return free(sender);
    }
    sender->held += n;
    char *end = memrchr(sender->block, '\n', sender->held);
    if (!end) return;
    size_t size = end + 1 - sender->block;
    for (int i = 0; i < count; i++)
        if (members[i] != sender) deliver(members[i], sender->block, size);
    memmove(sender->block, end + 1, sender->held -= size);
}

int main(void) {
    const char *port = getenv("PORT");
    struct sockaddr_in at = {AF_INET, htons(port ? atoi(port) : 0), {htonl(INADDR_LOOPBACK)}, {0}};
    signal(SIGCHLD, SIG_IGN); /* the kernel reaps */
    signal(SIGPIPE, SIG_IGN); /* a child that has ended is removed when its pipe up ends */
    listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, SOMAXCONN))
        return perror("floor"), 1;
    loop = epoll_create1(0);
    epoll_ctl(loop, EPOLL_CTL_ADD, listener, &(struct epoll_event){EPOLLIN, {.ptr = NULL}});
    for (;;) {
        struct epoll_event events[64];
        int n = epoll_wait(loop, events, 64, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr) relay(events[i].data.ptr);
            else accept_client();
        }
    }
}
