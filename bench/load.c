/* A load client for event streams: opens N of them, counts what arrives, and says when the last one had each message.
 *
 *   load PORT STREAMS LINES SECONDS HELLO MARK REQUEST...
 *
 * LINES is a file; stream k uses its line k, in turn, which replaces `{}` in the requests. The last REQUEST opens the
 * stream; those before it are sent first, one after another on the same connection, and answered with 200 or 304.
 * HELLO is what arrives when a stream is open and current, MARK the beginning of a message. On standard output, one line each:
 *   ready <seconds to connect all> <connects per second>
 *   got <message number> <CLOCK_REALTIME seconds when the last stream had it>
 *   failed <why>, which ends it: an answer other than 200 and 304, or a stream that ended before all were open
 *   end <messages received in all> <streams that ended> <busy share of this process, 0 to 1> <longest turn in milliseconds>
 * It ends after SECONDS. A busy share near 1 means that the figures are those of this client and not of the server.
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

enum { HELLO_MOST = 32, ROOM = 1 << 18, AT_ONCE = 512, PER_TURN = 128, MESSAGES_MOST = 100000, LINES_MOST = 1 << 17, LINE_MOST = 512 };

/* stage: answers received before the stream; left: bytes of the current answer's body, -1 before its head */
struct stream { int fd, got, open, stage, tail_length; long left; const char *line; char tail[HELLO_MOST]; };

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *why) { printf("failed %s\n", why); exit(1); }

static void ask(const struct stream *s, const char *request) {
    char text[8192];
    int length = 0;
    for (const char *hole; (hole = strstr(request, "{}")); request = hole + 2)
        length += snprintf(text + length, sizeof text - length, "%.*s%s", (int)(hole - request), request, s->line);
    length += snprintf(text + length, sizeof text - length, "%s", request);
    if (write(s->fd, text, length) != length) fail("write");
}

static int begin(struct stream *s, const struct sockaddr_in *to, const char *line) {
    s->line = line;
    s->left = -1;
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (s->fd < 0 || connect(s->fd, (const struct sockaddr *)to, sizeof *to) < 0) return -1;
    return fcntl(s->fd, F_SETFL, O_NONBLOCK);
}

/* Count the bytes of an answer before the stream; returns 1 at its end. A head comes in one piece. */
static int answered(struct stream *s, char *bytes, long count) {
    if (s->left < 0) {
        bytes[count] = 0;
        char *body = strstr(bytes, "\r\n\r\n"), *length = strcasestr(bytes, "\r\nContent-Length:");
        if (!body || (strncmp(bytes + 9, "200", 3) && strncmp(bytes + 9, "304", 3))) fail(strtok(bytes, "\r"));
        s->left = length && length < body ? atol(length + 17) : 0;
        count -= body + 4 - bytes;
    }
    s->left -= count;
    if (s->left > 0) return 0;
    s->left = -1;
    s->stage++;
    return 1;
}

int main(int argc, char **argv) {
    if (argc < 8) { fprintf(stderr, "usage: load PORT STREAMS LINES SECONDS HELLO MARK REQUEST...\n"); return 2; }
    int wanted = atoi(argv[2]), stages = argc - 8;
    double limit = atof(argv[4]);
    const char *hello = argv[5], *mark = argv[6];
    char **requests = argv + 7;
    int hello_length = strlen(hello), mark_length = strlen(mark);
    struct rlimit files = {1 << 17, 1 << 17};
    if (setrlimit(RLIMIT_NOFILE, &files) < 0) { getrlimit(RLIMIT_NOFILE, &files); files.rlim_cur = files.rlim_max; setrlimit(RLIMIT_NOFILE, &files); }

    char (*lines)[LINE_MOST] = calloc(LINES_MOST, LINE_MOST);
    int line_count = 0;
    FILE *file = fopen(argv[3], "r");
    while (file && line_count < LINES_MOST && fgets(lines[line_count], LINE_MOST, file)) { lines[line_count][strcspn(lines[line_count], "\n")] = 0; line_count++; }
    if (!line_count) { fprintf(stderr, "no lines\n"); return 2; }

    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct stream *streams = calloc(wanted, sizeof *streams);
    int *reached = calloc(MESSAGES_MOST + 1, sizeof *reached);
    char *room = malloc(ROOM + HELLO_MOST + 1);
    struct epoll_event happened[AT_ONCE];
    int poll = epoll_create1(0), begun = 0, greeted = 0, ended = 0;
    long received = 0;
    double started = now(CLOCK_MONOTONIC), busy = 0, longest = 0, ready_at = 0;

    while (now(CLOCK_MONOTONIC) - started < limit) {
        double turn = now(CLOCK_MONOTONIC);
        for (int n = 0; n < PER_TURN && begun < wanted && begun - greeted - ended < 4 * PER_TURN; n++, begun++) {
            if (begin(&streams[begun], &to, lines[begun % line_count]) < 0) fail("connect");
            ask(&streams[begun], requests[0]);
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
                if (!s->open) fail(s->stage < stages ? "connection closed" : "stream refused");
                epoll_ctl(poll, EPOLL_CTL_DEL, s->fd, NULL); close(s->fd); ended++;
                continue;
            }
            if (s->stage < stages) {
                if (answered(s, room, more)) ask(s, requests[s->stage]);
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
            while ((at = memmem(at, end - at, mark, mark_length))) {
                at += mark_length;
                received++;
                if (++s->got <= MESSAGES_MOST && ++reached[s->got] == wanted) { printf("got %d %.6f\n", s->got, now(CLOCK_REALTIME)); fflush(stdout); }
            }
            /* keep what may be the beginning of a mark, but never a whole one: it would be counted twice */
            s->tail_length = 0;
            for (int keep = HELLO_MOST - 1; keep > 0; keep--) {
                if (end - room < keep) continue;
                if (keep < mark_length && !memcmp(end - keep, mark, keep)) { s->tail_length = keep; break; }
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
