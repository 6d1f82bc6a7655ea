/* A load client for event streams: opens N of them, counts what arrives, and says when the last one had each message.
 *
 *   load HOST PORT STREAMS TOKENS PATH MESSAGES SECONDS [HELLO]
 *
 * TOKENS is a file with one Bearer token in each line, used in turn. HELLO is what an open stream begins with, by default
 * `event: CONNECTED`. On standard output, one line each:
 *   ready <seconds to connect all> <connects per second>
 *   got <message number> <CLOCK_REALTIME seconds when the last stream had it>
 *   end <messages received in all> <streams that ended> <busy share of this process, 0 to 1> <longest turn in milliseconds>
 * It ends when every stream has MESSAGES messages, or after SECONDS. A busy share near 1 means that the figures are
 * those of this client and not of the server.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MARK "event: MESSAGE\n"
enum { MARK_LENGTH = sizeof MARK - 1, HELLO_MOST = 32, ROOM = 1 << 18, AT_ONCE = 512, PER_TURN = 128 };

struct stream { int fd; int got; int open; char tail[HELLO_MOST]; int tail_length; };

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int begin(struct stream *s, const struct sockaddr_in *to, const char *host, const char *path, const char *token) {
    char request[2048];
    int length = snprintf(request, sizeof request,
        "GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nAccept: text/event-stream\r\n\r\n", path, host, token);
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (s->fd < 0 || connect(s->fd, (const struct sockaddr *)to, sizeof *to) < 0) return -1;
    fcntl(s->fd, F_SETFL, O_NONBLOCK);
    return write(s->fd, request, length) == length ? 0 : -1;
}

int main(int argc, char **argv) {
    if (argc < 8) { fprintf(stderr, "usage: load HOST PORT STREAMS TOKENS PATH MESSAGES SECONDS [HELLO]\n"); return 2; }
    const char *host = argv[1], *path = argv[5];
    int wanted = atoi(argv[3]), messages = atoi(argv[6]);
    const char *hello = argc > 8 ? argv[8] : "event: CONNECTED";
    int hello_length = strlen(hello);
    double limit = atof(argv[7]);
    struct rlimit files = {1 << 17, 1 << 17};
    if (setrlimit(RLIMIT_NOFILE, &files) < 0) { getrlimit(RLIMIT_NOFILE, &files); files.rlim_cur = files.rlim_max; setrlimit(RLIMIT_NOFILE, &files); }

    char (*tokens)[256] = calloc(1 << 17, 256);
    int token_count = 0;
    FILE *file = fopen(argv[4], "r");
    while (file && fgets(tokens[token_count], 256, file)) { tokens[token_count][strcspn(tokens[token_count], "\n")] = 0; token_count++; }
    if (!token_count) { fprintf(stderr, "no tokens\n"); return 2; }

    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    inet_pton(AF_INET, host, &to.sin_addr);
    struct stream *streams = calloc(wanted, sizeof *streams);
    int *reached = calloc(messages + 2, sizeof *reached);
    char *room = malloc(ROOM + HELLO_MOST);
    struct epoll_event happened[AT_ONCE];
    int poll = epoll_create1(0), begun = 0, greeted = 0, ended = 0;
    long received = 0;
    double started = now(CLOCK_MONOTONIC), busy = 0, longest = 0, ready_at = 0;

    while (now(CLOCK_MONOTONIC) - started < limit && (messages == 0 || reached[messages] < wanted)) {
        double turn = now(CLOCK_MONOTONIC);
        for (int n = 0; n < PER_TURN && begun < wanted && begun - greeted - ended < 4 * PER_TURN; n++, begun++) {
            if (begin(&streams[begun], &to, host, path, tokens[begun % token_count]) < 0) { perror("connect"); return 1; }
            epoll_ctl(poll, EPOLL_CTL_ADD, streams[begun].fd, &(struct epoll_event){.events = EPOLLIN, .data.ptr = &streams[begun]});
        }
        busy += now(CLOCK_MONOTONIC) - turn;
        int count = epoll_wait(poll, happened, AT_ONCE, begun < wanted ? 1 : 50);
        turn = now(CLOCK_MONOTONIC);
        for (int n = 0; n < count; n++) {
            struct stream *s = happened[n].data.ptr;
            memcpy(room, s->tail, s->tail_length);
            ssize_t more = read(s->fd, room + s->tail_length, ROOM);
            if (more <= 0) {
                if (more < 0 && errno == EAGAIN) continue;
                epoll_ctl(poll, EPOLL_CTL_DEL, s->fd, NULL); close(s->fd); ended++;
                continue;
            }
            char *at = room, *end = room + s->tail_length + more;
            if (!s->open && memmem(at, end - at, hello, hello_length)) {
                s->open = 1;
                if (++greeted == wanted) {
                    ready_at = now(CLOCK_MONOTONIC) - started;
                    printf("ready %.3f %.0f\n", ready_at, wanted / ready_at);
                    fflush(stdout);
                }
            }
            while ((at = memmem(at, end - at, MARK, MARK_LENGTH))) {
                at += MARK_LENGTH;
                received++;
                if (++s->got <= messages && ++reached[s->got] == wanted) { printf("got %d %.6f\n", s->got, now(CLOCK_REALTIME)); fflush(stdout); }
            }
            /* keep what may be the beginning of a mark, but never a whole one: it would be counted twice */
            s->tail_length = 0;
            for (int keep = HELLO_MOST - 1; keep > 0; keep--) {
                if (end - room < keep) continue;
                if (keep < MARK_LENGTH && !memcmp(end - keep, MARK, keep)) { s->tail_length = keep; break; }
                if (!s->open && keep < hello_length && !memcmp(end - keep, hello, keep)) { s->tail_length = keep; break; }
            }
            memcpy(s->tail, end - s->tail_length, s->tail_length);
        }
        double took = now(CLOCK_MONOTONIC) - turn;
        busy += took;
        if (ready_at && took > longest) longest = took;
    }
    printf("end %ld %d %.3f %.1f\n", received, ended, busy / (now(CLOCK_MONOTONIC) - started), longest * 1000);
    return 0;
}
