/* The two ends of a bench: a generator of requests and a source that answers them.
 *
 *     load generate name=value ...     what an institution's back-end does
 *     load provide name=value ...      what a source does
 *
 * Both speak the protocol of docs/protocol.md over TLS 1.3 with certificates on both sides, in one
 * thread each. They are written in C so that they take as little as possible of the processors that
 * they share with the router. Every request is encoded beforehand; its correlation id, ticket and
 * person are put into place in the frame. The source writes into the first eight bytes of each
 * payload how many nanoseconds it had the delivery, so that the generator can take them off.
 *
 * A source that is sent Requests, with no router between, answers these as a router would: that is
 * what a relay that reads nothing is measured with, and no relay at all. Given ``speaks=nats``,
 * both ends do the same work as clients of a NATS server.
 *
 * Given ``number_at``, the generator submits: each submission has a number of its own in its
 * payload, and is sent again, with its ticket, until it was answered with data, whatever breaks.
 *
 * The chain of a peer's certificate is verified; its name is not compared, since both ends of every
 * connection stand on one machine. What a peer sends against the protocol ends the program.
 */

#include "load.h"

#include <fcntl.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

volatile sig_atomic_t is_stopping;

void die(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    exit(1);
}

static void stop(int number)
{
    (void)number;
    is_stopping = 1;
}

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

/* ---- arguments: name=value ---- */

static char **arguments;

const char *text(const char *name)
{
    size_t length = strlen(name);
    for (char **at = arguments; *at; at++)
        if (!strncmp(*at, name, length) && (*at)[length] == '=')
            return *at + length + 1;
    return NULL;
}

const char *needed(const char *name)
{
    const char *value = text(name);
    if (!value)
        die("%s=... is needed", name);
    return value;
}

double real(const char *name, double otherwise)
{
    const char *value = text(name);
    return value ? atof(value) : otherwise;
}

long number(const char *name, long otherwise)
{
    const char *value = text(name);
    return value ? atol(value) : otherwise;
}

/* ---- what was seen, row after row, for who counts later what is missing or doubled ---- */

/* Exchange id, code (of an answer) or repeat flag (of a delivery), number of the submission; most
 * significant first. */
static struct bytes seen;
static int seen_fd = -1;

static void open_seen(void)
{
    if (text("seen") && (seen_fd = open(text("seen"), O_WRONLY | O_CREAT | O_APPEND, 0600)) < 0)
        die("%s: %s", text("seen"), strerror(errno));
}

void write_seen(void)
{
    while (seen.begin < seen.end) {
        ssize_t written = write(seen_fd, seen.data + seen.begin, seen.end - seen.begin);
        if (written < 0)
            die("cannot write what was seen: %s", strerror(errno));
        seen.begin += (size_t)written;
    }
}

void see(const uint8_t *exchange, const uint8_t *what, size_t what_bytes, uint64_t number)
{
    uint8_t last[8];
    if (seen_fd < 0)
        return;
    put_u64(last, number);
    add(&seen, exchange, 16);
    add(&seen, what, what_bytes);
    add(&seen, last, sizeof last);
}

int main(int count, char **words)
{
    signal(SIGPIPE, SIG_IGN);
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    prctl(PR_SET_TIMERSLACK, 1);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a bench that was killed leaves nothing running */
    open_epoll();
    arguments = words + (count > 2 ? 2 : count);
    dialect = text("speaks") && !strcmp(text("speaks"), "nats") ? &nats : &frames;
    if (count > 1 && !strcmp(words[1], "provide")) {
        open_seen();
        return provide();
    }
    if (count > 1 && !strcmp(words[1], "generate")) {
        open_seen();
        return generate();
    }
    die("load generate|provide name=value ...");
}
