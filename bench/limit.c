/* The physical limit: a server that does nothing but send() the same bytes to every client, one after another.
 *
 *   limit PORT STREAMS BYTES
 *
 * Answers every request with the head of a stream and CONNECTED. When STREAMS are there it sends one message of BYTES bytes
 * for each line on standard input, and prints `sent <number> <CLOCK_REALTIME seconds>`, the time before the first send().
 */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char HELLO[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: CONNECTED\ndata: {}\n\n";

int main(int argc, char **argv) {
    if (argc < 4) { fprintf(stderr, "usage: limit PORT STREAMS BYTES\n"); return 2; }
    int wanted = atoi(argv[2]), bytes = atoi(argv[3]), one = 1;
    struct rlimit files = {1 << 17, 1 << 17};
    if (setrlimit(RLIMIT_NOFILE, &files) < 0) { getrlimit(RLIMIT_NOFILE, &files); files.rlim_cur = files.rlim_max; setrlimit(RLIMIT_NOFILE, &files); }
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = socket(AF_INET, SOCK_STREAM, 0), *clients = calloc(wanted, sizeof *clients);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&here, sizeof here) < 0 || listen(listener, 4096) < 0) { perror("listen"); return 1; }
    printf("listening\n"); fflush(stdout);
    char request[4096];
    for (int n = 0; n < wanted; n++) {
        clients[n] = accept(listener, NULL, NULL);
        if (clients[n] < 0 || read(clients[n], request, sizeof request) <= 0) { perror("accept"); return 1; }
        if (write(clients[n], HELLO, sizeof HELLO - 1) < 0) perror("write");
    }
    char *message = malloc(bytes + 64);
    int length = sprintf(message, "event: MESSAGE\ndata: ");
    memset(message + length, 'x', bytes - length - 2);
    memcpy(message + bytes - 2, "\n\n", 2);
    for (int k = 1; fgets(request, sizeof request, stdin); k++) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        for (int n = 0; n < wanted; n++) if (send(clients[n], message, bytes, MSG_NOSIGNAL) < 0) clients[n] = -1;
        printf("sent %d %.6f\n", k, t.tv_sec + t.tv_nsec / 1e9);
        fflush(stdout);
    }
    return 0;
}
