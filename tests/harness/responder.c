/* The smallest container of the SageMaker contract: answers GET /ping and POST /invocations over keep-alive HTTP/1.1
 * with a fixed body, from one epoll loop. A body that begins with "wait" is never answered, one that begins with "echo" is
 * sent back. Built static; the peer of the invocation benchmark and the crash suite. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MOST = 4096, ROOM = 65536 };
struct peer { size_t used; char bytes[ROOM]; };
static struct peer *peers[MOST];
static const char answer[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nfixed\n";

static void forget(int fd) { close(fd); free(peers[fd]); peers[fd] = NULL; }

/* Length of the first whole request in the buffer, 0 while it is incomplete, -1 when it can never fit. */
static long whole(struct peer *p) {
    p->bytes[p->used] = 0;
    char *end = memmem(p->bytes, p->used, "\r\n\r\n", 4);
    if (!end) return p->used >= ROOM - 1 ? -1 : 0;
    long head = end + 4 - p->bytes, body = 0;
    for (char *line = p->bytes; line < end; line = strstr(line, "\r\n") + 2)
        if (!strncasecmp(line, "content-length:", 15)) body = strtol(line + 15, NULL, 10);
    if (body < 0 || head + body > ROOM - 1) return -1;
    return (long)p->used >= head + body ? head + body : 0;
}

/* Sends the body of a request of `length` bytes back; 0 when it cannot. */
static int echo(int fd, const char *body, size_t length) {
    char head[128];
    int size = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n", length);
    struct iovec parts[] = { { head, (size_t)size }, { (char *)body, length } };
    return writev(fd, parts, 2) == (ssize_t)(size + (ssize_t)length);
}

static void serve_peer(int fd) {
    struct peer *p = peers[fd];
    ssize_t got = read(fd, p->bytes + p->used, ROOM - 1 - p->used);
    if (got <= 0) { if (got == 0 || errno != EAGAIN) forget(fd); return; }
    p->used += (size_t)got;
    for (long length; (length = whole(p)) != 0;) {
        int silent = length > 0 && memmem(p->bytes, (size_t)length, "\r\n\r\nwait", 8) != NULL;
        char *body = length > 0 ? memmem(p->bytes, (size_t)length, "\r\n\r\n", 4) : NULL;
        int sent = silent;
        if (body && !silent && !strncmp(body + 4, "echo", 4)) sent = echo(fd, body + 4, (size_t)(p->bytes + length - body - 4));
        else if (body && !silent) sent = write(fd, answer, sizeof answer - 1) == (ssize_t)sizeof answer - 1;
        if (!sent) { forget(fd); return; }
        memmove(p->bytes, p->bytes + length, p->used - (size_t)length);
        p->used -= (size_t)length;
    }
}

static void stop(int signal) { (void)signal; _exit(0); }

int main(int argc, char **argv) {
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(argc > 2 ? atoi(argv[2]) : 8080) };
    int listener = socket(AF_INET, SOCK_STREAM, 0), queue = epoll_create1(0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 512)) { perror("responder"); return 1; }
    signal(SIGTERM, stop);
    signal(SIGPIPE, SIG_IGN);
    struct epoll_event event = { .events = EPOLLIN, .data.fd = listener }, ready[64];
    epoll_ctl(queue, EPOLL_CTL_ADD, listener, &event);
    puts("serving");
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(queue, ready, 64, -1);
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd;
            if (fd != listener) { serve_peer(fd); continue; }
            int peer = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
            if (peer < 0) continue;
            if (peer >= MOST || !(peers[peer] = calloc(1, sizeof(struct peer)))) { close(peer); continue; }
            setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            event = (struct epoll_event){ .events = EPOLLIN, .data.fd = peer };
            epoll_ctl(queue, EPOLL_CTL_ADD, peer, &event);
        }
    }
}
