/* What the parts of the load program share; load.c says what the program is. */

#ifndef LOAD_H
#define LOAD_H

#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

enum { SLOTS_MAX = 1024, EVENTS_MAX = 256, INSZ_CHARS = 11, ANSWERED_WITH_DATA = 10001 };
#define SECOND_NS 1000000000ull
#define RETRY_NS (20 * 1000000ull)

/* ---- load.c: the program ---- */

extern volatile sig_atomic_t is_stopping;

_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t now_ns(void);

/* An argument name=value; needed() ends the program without it. */
const char *text(const char *name);
const char *needed(const char *name);
double real(const char *name, double otherwise);
long number(const char *name, long otherwise);

/* Keep a row for who counts later what is missing or doubled, if ``seen=FILE`` was given. */
void see(const uint8_t *exchange, const uint8_t *what, size_t what_bytes, uint64_t number);
void write_seen(void);

/* ---- bytes.c ---- */

struct bytes {
    uint8_t *data;
    size_t begin, end, room;
};

uint8_t *grow(struct bytes *bytes, size_t count);
void add(struct bytes *bytes, const void *data, size_t count);
uint8_t *read_file(const char *name, size_t *size);

/* Numbers, most significant byte first. */
void put_u32(uint8_t *at, uint32_t value);
void put_u64(uint8_t *at, uint64_t value);
uint64_t get_big_endian(const uint8_t *at, int count);

/* ---- connection.c: TLS connections, all in one epoll ---- */

enum state { CLOSED, CONNECTING, AWAITING_A_LINE, SHAKING_HANDS, GREETING, OPEN };

/* A place for one exchange of the generator; its number is the end of the correlation id. */
struct slot {
    uint32_t id;
    bool is_open, is_measured;
    uint64_t intended_ns, number, person;
};

struct peer {
    int fd, index;
    enum state state;
    SSL *tls;
    struct bytes in, out;
    bool wants_write, is_touched;
    uint64_t bye_code; /* 0: the peer has not said goodbye */
    uint64_t retry_ns, read_ns;
    struct peer *next;
    /* of the generator */
    struct slot slots[SLOTS_MAX];
    int free[SLOTS_MAX], free_count;
};

/* How the other side is spoken to: docs/protocol.md, or NATS. */
struct dialect {
    const uint8_t *alpn; /* as in a ClientHello; NULL: none */
    unsigned alpn_bytes;
    bool has_a_line_first;         /* who accepts sends one in plain before TLS begins */
    void (*greet)(struct peer *);  /* said by who dialled, once TLS stands */
    void (*take)(struct peer *);   /* take all whole messages from peer->in */
    void (*part)(struct peer *);   /* said before the end */
};

extern const struct dialect frames, nats;
extern const struct dialect *dialect;
extern void (*on_open)(struct peer *), (*on_closed)(struct peer *);

void open_epoll(void);
void make_context(bool is_server);
int listen_on(long port);
struct peer *accept_on(int listener); /* NULL: nobody was there; else it belongs to the caller */
void dial(struct peer *peer, long port);
void flush(struct peer *peer);
/* Work on what is ready, waiting for it until ``due_ns`` at most; what comes to the listener goes
 * to ``on_arrival``. */
void wait_until(uint64_t due_ns, void (*on_arrival)(void));

/* ---- provide.c: the source ---- */

int provide(void);
/* A source answers with as many bytes as it was sent, and at least eight: its own nanoseconds. */
size_t supply_bytes_for(size_t payload_bytes);
void note_delivery(const uint8_t *exchange, bool is_repeat, const uint8_t *payload, size_t bytes);

/* ---- generate.c: the generator ---- */

struct answer {
    uint64_t id, code, router_us;
    const uint8_t *exchange, *payload; /* exchange: 16 bytes or NULL */
    size_t payload_bytes;
};

int generate(void);
void take_answer(struct peer *peer, const struct answer *answer);

#endif
