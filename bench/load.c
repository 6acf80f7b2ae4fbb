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
 * Given ``number_at``, the generator submits: each submission has a number of its own in its payload,
 * and is sent again, with its ticket, until it was answered with data, whatever breaks meanwhile.
 *
 * The chain of a peer's certificate is verified; its name is not compared, since both ends of every
 * connection stand on one machine. What a peer sends against the protocol ends the program.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { HELLO = 1, WELCOME = 2, PING = 3, PONG = 4, BYE = 7, REQUEST = 16, ANSWER = 17,
       DELIVERY = 18, REPLY = 19 };
enum { SLOTS_MAX = 1024, EVENTS_MAX = 256, INSZ_CHARS = 11, FRAME_BYTES_MAX = 1 << 20,
       ANSWERED_WITH_DATA = 10001 };
#define SECOND_NS 1000000000ull
#define RETRY_NS (20 * 1000000ull)
#define AGAIN_NS (200 * 1000000ull)
#define DRAIN_NS (15 * SECOND_NS)

static volatile sig_atomic_t is_stopping;

static void die(const char *format, ...)
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

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

/* ---- arguments: name=value ---- */

static char **arguments;

static const char *text(const char *name)
{
    size_t length = strlen(name);
    for (char **at = arguments; *at; at++)
        if (!strncmp(*at, name, length) && (*at)[length] == '=')
            return *at + length + 1;
    return NULL;
}

static const char *needed(const char *name)
{
    const char *value = text(name);
    if (!value)
        die("%s=... is needed", name);
    return value;
}

static double real(const char *name, double otherwise)
{
    const char *value = text(name);
    return value ? atof(value) : otherwise;
}

static long number(const char *name, long otherwise)
{
    const char *value = text(name);
    return value ? atol(value) : otherwise;
}

/* ---- bytes ---- */

struct bytes {
    uint8_t *data;
    size_t begin, end, room;
};

static uint8_t *grow(struct bytes *bytes, size_t count)
{
    if (bytes->begin == bytes->end)
        bytes->begin = bytes->end = 0;
    if (bytes->end + count > bytes->room) {
        if (bytes->begin)
            memmove(bytes->data, bytes->data + bytes->begin, bytes->end - bytes->begin);
        bytes->end -= bytes->begin;
        bytes->begin = 0;
        if (bytes->end + count > bytes->room) {
            bytes->room = 2 * (bytes->end + count);
            bytes->data = realloc(bytes->data, bytes->room);
            if (!bytes->data)
                die("no memory");
        }
    }
    return bytes->data + bytes->end;
}

static void add(struct bytes *bytes, const void *data, size_t count)
{
    memcpy(grow(bytes, count), data, count);
    bytes->end += count;
}

static uint8_t *read_file(const char *name, size_t *size)
{
    FILE *file = fopen(name, "rb");
    struct bytes bytes = {0};
    if (!file)
        die("%s: %s", name, strerror(errno));
    for (size_t got = 1; got > 0; bytes.end += got)
        got = fread(grow(&bytes, 1 << 16), 1, 1 << 16, file);
    fclose(file);
    *size = bytes.end;
    return bytes.data;
}

static void put_u32(uint8_t *at, uint32_t value)
{
    value = htonl(value);
    memcpy(at, &value, 4);
}

static uint64_t get_big_endian(const uint8_t *at, int count)
{
    uint64_t value = 0;
    while (count--)
        value = value << 8 | *at++;
    return value;
}

static void put_u64(uint8_t *at, uint64_t value)
{
    put_u32(at, (uint32_t)(value >> 32));
    put_u32(at + 4, (uint32_t)value);
}

/* ---- MessagePack: as much of it as is needed to find a field ---- */

struct reader {
    const uint8_t *at, *end;
};

static const uint8_t *take(struct reader *reader, size_t count)
{
    const uint8_t *at = reader->at;
    if (count > (size_t)(reader->end - at))
        die("a message ends too early");
    reader->at += count;
    return at;
}

static uint64_t take_size(struct reader *reader, int count)
{
    return get_big_endian(take(reader, (size_t)count), count);
}

/* Take one element with all that it holds. */
static void skip(struct reader *reader)
{
    for (uint64_t left = 1; left > 0; left--) {
        uint8_t head = *take(reader, 1);
        if (head <= 0x7f || head >= 0xe0 || head == 0xc0 || head == 0xc2 || head == 0xc3)
            continue;
        else if (head <= 0x8f)
            left += 2 * (head & 0x0fu);
        else if (head <= 0x9f)
            left += head & 0x0fu;
        else if (head <= 0xbf)
            take(reader, head & 0x1fu);
        else if (head >= 0xc4 && head <= 0xc6)
            take(reader, take_size(reader, 1 << (head - 0xc4)));
        else if (head >= 0xca && head <= 0xcb)
            take(reader, head == 0xca ? 4 : 8);
        else if (head >= 0xcc && head <= 0xd3)
            take(reader, (size_t)1 << ((head - 0xcc) & 3));
        else if (head >= 0xd9 && head <= 0xdb)
            take(reader, take_size(reader, 1 << (head - 0xd9)));
        else if (head == 0xdc || head == 0xdd)
            left += take_size(reader, head == 0xdc ? 2 : 4);
        else if (head == 0xde || head == 0xdf)
            left += 2 * take_size(reader, head == 0xde ? 2 : 4);
        else
            die("an element of type %02x", head);
    }
}

static uint64_t take_number(struct reader *reader)
{
    uint8_t head = *take(reader, 1);
    if (head <= 0x7f)
        return head;
    if (head < 0xcc || head > 0xcf)
        die("an element of type %02x where a number is due", head);
    return take_size(reader, 1 << (head - 0xcc));
}

static struct reader take_binary(struct reader *reader)
{
    uint8_t head = *take(reader, 1);
    if (head < 0xc4 || head > 0xc6)
        die("an element of type %02x where bytes are due", head);
    uint64_t size = take_size(reader, 1 << (head - 0xc4));
    const uint8_t *at = take(reader, size);
    return (struct reader){at, at + size};
}

/* Take the head of a message and return its tag. */
static uint64_t take_tag(struct reader *reader)
{
    uint8_t head = *take(reader, 1);
    if (head == 0xdc || head == 0xdd)
        take(reader, head == 0xdc ? 2 : 4);
    else if ((head & 0xf0) != 0x90)
        die("a frame that holds no array");
    return take_number(reader);
}

/* ---- one connection ---- */

enum state { CLOSED, CONNECTING, SHAKING_HANDS, GREETING, OPEN };

struct slot {
    uint32_t id;
    bool is_open, is_measured;
    uint64_t intended_ns, number, person;
};

struct peer {
    int fd;
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

static int epoll_fd;
static SSL_CTX *context;
static const uint8_t ALPN[] = "\x0cksz-router/1";
static void (*on_message)(struct peer *, uint64_t tag, struct reader);
static void (*on_open)(struct peer *);
static void (*on_closed)(struct peer *);

static int choose_alpn(SSL *tls, const uint8_t **out, uint8_t *out_length, const uint8_t *in,
                       unsigned in_length, void *unused)
{
    (void)tls, (void)unused;
    return SSL_select_next_proto((uint8_t **)out, out_length, ALPN, sizeof ALPN - 1, in, in_length)
                   == OPENSSL_NPN_NEGOTIATED
               ? SSL_TLSEXT_ERR_OK
               : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static void make_context(bool is_server)
{
    context = SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method());
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_num_tickets(context, 0);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_default_read_buffer_len(context, 1 << 18);
    if (SSL_CTX_use_certificate_chain_file(context, needed("certificate")) != 1
        || SSL_CTX_use_PrivateKey_file(context, needed("key"), SSL_FILETYPE_PEM) != 1
        || SSL_CTX_load_verify_locations(context, needed("authorities"), NULL) != 1)
        die("certificate, key or authorities cannot be used");
    if (is_server)
        SSL_CTX_set_alpn_select_cb(context, choose_alpn, NULL);
    else
        SSL_CTX_set_alpn_protos(context, ALPN, sizeof ALPN - 1);
}

static void watch(struct peer *peer, int operation, bool wants_write)
{
    struct epoll_event event = {EPOLLIN | (wants_write ? (uint32_t)EPOLLOUT : 0), {.ptr = peer}};
    if (operation == EPOLL_CTL_ADD || wants_write != peer->wants_write)
        if (epoll_ctl(epoll_fd, operation, peer->fd, &event))
            die("epoll_ctl: %s", strerror(errno));
    peer->wants_write = wants_write;
}

static void begin_tls(struct peer *peer, bool is_server)
{
    int on = 1;
    setsockopt(peer->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    peer->tls = SSL_new(context);
    SSL_set_fd(peer->tls, peer->fd);
    if (is_server)
        SSL_set_accept_state(peer->tls);
    else
        SSL_set_connect_state(peer->tls);
}

static void close_peer(struct peer *peer)
{
    SSL_free(peer->tls);
    close(peer->fd);
    peer->tls = NULL;
    peer->state = CLOSED;
    peer->in.begin = peer->in.end = peer->out.begin = peer->out.end = 0;
    peer->retry_ns = now_ns() + RETRY_NS;
    on_closed(peer);
}

static void flush(struct peer *peer)
{
    struct bytes *out = &peer->out;
    peer->is_touched = false;
    while (peer->state >= GREETING && out->begin < out->end) {
        int sent = SSL_write(peer->tls, out->data + out->begin, (int)(out->end - out->begin));
        if (sent > 0) {
            out->begin += (size_t)sent;
            continue;
        }
        int error = SSL_get_error(peer->tls, sent);
        if (error != SSL_ERROR_WANT_WRITE && error != SSL_ERROR_WANT_READ) {
            ERR_clear_error();
            close_peer(peer);
            return;
        }
        break;
    }
    if (peer->state >= GREETING)
        watch(peer, EPOLL_CTL_MOD, out->begin < out->end);
}

static void frame(struct peer *peer, const void *body, size_t size)
{
    uint8_t length[4];
    put_u32(length, (uint32_t)size);
    add(&peer->out, length, 4);
    add(&peer->out, body, size);
}

static void shake_hands(struct peer *peer)
{
    int done = SSL_do_handshake(peer->tls);
    if (done == 1) {
        peer->state = GREETING;
        watch(peer, EPOLL_CTL_MOD, false);
        if (!SSL_is_server(peer->tls)) {
            static const uint8_t hello[] = "\x95\x01\x91\x01\x01\xa5" "bench" "\xce\x00\x10\x00\x00";
            frame(peer, hello, sizeof hello - 1);
            flush(peer);
        }
        return;
    }
    int error = SSL_get_error(peer->tls, done);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        watch(peer, EPOLL_CTL_MOD, error == SSL_ERROR_WANT_WRITE);
        return;
    }
    ERR_clear_error();
    close_peer(peer);
}

static void take_message(struct peer *peer, struct reader reader)
{
    uint8_t pong[2 + 9] = {0x92, PONG, 0xcf};
    uint64_t tag = take_tag(&reader);
    switch (tag) {
    case PING:
        put_u64(pong + 3, take_number(&reader));
        frame(peer, pong, sizeof pong);
        break;
    case HELLO:
        frame(peer, "\x95\x02\x01\xa5" "bench" "\xce\x00\x10\x00\x00\xcd\x04\x00", 17);
        peer->state = OPEN;
        break;
    case WELCOME:
        peer->state = OPEN;
        on_open(peer);
        break;
    case BYE:
        peer->bye_code = take_number(&reader);
        break;
    default:
        on_message(peer, tag, reader);
    }
}

static void take_frames(struct peer *peer)
{
    struct bytes *in = &peer->in;
    while (in->end - in->begin >= 4) {
        const uint8_t *at = in->data + in->begin;
        uint64_t size = get_big_endian(at, 4);
        if (size < 1 || size > FRAME_BYTES_MAX)
            die("a frame of %" PRIu64 " bytes", size);
        if (in->end - in->begin < 4 + size)
            break;
        take_message(peer, (struct reader){at + 4, at + 4 + size});
        in->begin += 4 + size;
    }
}

static void receive(struct peer *peer)
{
    for (;;) {
        int got = SSL_read(peer->tls, grow(&peer->in, 1 << 16), 1 << 16);
        if (got > 0) {
            peer->in.end += (size_t)got;
            peer->read_ns = now_ns();
            take_frames(peer);
            continue;
        }
        int error = SSL_get_error(peer->tls, got);
        if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
            break;
        ERR_clear_error();
        close_peer(peer);
        return;
    }
    flush(peer);
}

static void on_ready(struct peer *peer, uint32_t events)
{
    if (peer->state == CONNECTING) {
        int fault = 0;
        socklen_t size = sizeof fault;
        getsockopt(peer->fd, SOL_SOCKET, SO_ERROR, &fault, &size);
        if (fault) {
            close_peer(peer);
            return;
        }
        begin_tls(peer, false);
        peer->state = SHAKING_HANDS;
    }
    if (peer->state == SHAKING_HANDS)
        shake_hands(peer);
    if (peer->state >= GREETING) {
        if (events & EPOLLOUT)
            flush(peer);
        if (peer->state >= GREETING)
            receive(peer);
    }
}

static struct sockaddr_in address_of(long port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

/* What was seen, row after row, for who counts later what is missing or doubled: exchange id, code
 * (of an answer) or repeat flag (of a delivery), number of the submission; most significant first. */
static struct bytes seen;
static int seen_fd = -1;

static void open_seen(void)
{
    if (text("seen") && (seen_fd = open(text("seen"), O_WRONLY | O_CREAT | O_APPEND, 0600)) < 0)
        die("%s: %s", text("seen"), strerror(errno));
}

static void write_seen(void)
{
    while (seen.begin < seen.end) {
        ssize_t written = write(seen_fd, seen.data + seen.begin, seen.end - seen.begin);
        if (written < 0)
            die("cannot write what was seen: %s", strerror(errno));
        seen.begin += (size_t)written;
    }
}

/* ---- the source ---- */

static uint64_t deliveries, connections_made;

/* Answer a delivery with as many bytes as it had, and at least eight. */
static void reply(struct peer *peer, uint64_t tag, struct reader reader)
{
    static uint8_t supply[UINT16_MAX];
    if (tag != DELIVERY)
        return; /* a Drain: the router will close */
    uint8_t head[64] = {0, 0, 0, 0, 0x99, REPLY, 0xce}; /* outcome 0 stands behind the id */
    put_u32(head + 7, (uint32_t)take_number(&reader));
    struct reader exchange = take_binary(&reader);
    for (int field = 3; field < 12; field++)
        skip(&reader);
    const uint8_t *person = reader.at;
    skip(&reader);
    size_t person_bytes = (size_t)(reader.at - person), size = 12;
    if (person_bytes > 1 + INSZ_CHARS)
        die("a person of %zu bytes", person_bytes);
    memcpy(head + size, person, person_bytes);
    for (int field = 13; field < 18; field++)
        skip(&reader);
    uint8_t is_repeat = *take(&reader, 1) == 0xc3;
    skip(&reader);
    struct reader payload = take_binary(&reader);
    size_t supply_bytes = (size_t)(payload.end - payload.at);
    supply_bytes = supply_bytes < 8 ? 8 : supply_bytes > sizeof supply ? sizeof supply : supply_bytes;
    size += person_bytes;
    memcpy(head + size, "\x90\xc0\xc0\xa0\xc5", 5);
    head[size + 5] = (uint8_t)(supply_bytes >> 8);
    head[size + 6] = (uint8_t)supply_bytes;
    size += 7;
    put_u32(head, (uint32_t)(size - 4 + supply_bytes));
    put_u64(supply, now_ns() - peer->read_ns);
    add(&peer->out, head, size);
    add(&peer->out, supply, supply_bytes);
    deliveries++;
    if (seen_fd >= 0 && payload.end - payload.at >= 8) {
        add(&seen, exchange.at, 16);
        add(&seen, &is_repeat, 1);
        add(&seen, payload.at, 8);
    }
}

/* Whoever closed it may still look at it in this turn: it is freed after the turn. */
static struct peer *forgotten;

static void forget(struct peer *peer)
{
    peer->next = forgotten;
    forgotten = peer;
}

static void free_forgotten(void)
{
    while (forgotten) {
        struct peer *peer = forgotten;
        forgotten = peer->next;
        free(peer->in.data);
        free(peer->out.data);
        free(peer);
    }
}

static void accept_peer(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct peer *peer = calloc(1, sizeof *peer);
    peer->fd = fd;
    begin_tls(peer, true);
    peer->state = SHAKING_HANDS;
    watch(peer, EPOLL_CTL_ADD, false);
    connections_made++;
}

static int provide(void)
{
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = address_of(atol(needed("port")));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64))
        die("cannot listen on port %s: %s", text("port"), strerror(errno));
    struct epoll_event event = {EPOLLIN, {.ptr = NULL}}, events[EVENTS_MAX];
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event);
    make_context(true);
    on_message = reply;
    on_closed = forget;
    puts("ready");
    while (!is_stopping) {
        int count = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);
        for (int n = 0; n < count; n++) {
            if (events[n].data.ptr)
                on_ready(events[n].data.ptr, events[n].events);
            else
                accept_peer(listener);
        }
        free_forgotten();
        write_seen();
    }
    printf("{\"deliveries\": %" PRIu64 ", \"connections\": %" PRIu64 "}\n", deliveries,
           connections_made);
    return 0;
}

/* ---- the generator ---- */

static struct peer *peers;
static int connections, outstanding, open_count, next_peer;
static uint8_t *request, *persons;
static size_t request_bytes, persons_count, id_at, ticket_at, person_at, number_at, answer_bytes;
static uint64_t sent, answered, doubled, broken, closed, wrong, in_flight, stalls, window_answers;
static uint64_t unsent; /* what was scheduled, and found no free place until the very end */
static uint64_t next_ns, begin_ns, end_ns, random_state, answers_by_code[UINT16_MAX + 1];
static double rate;
static bool is_sending, may_reconnect;

/* Nanoseconds, at most 4 s, of each measured exchange. */
struct samples {
    uint32_t *value;
    size_t count, room;
};
static struct samples latencies, latenesses, router_times;

static void note(struct samples *samples, int64_t value)
{
    if (samples->count == samples->room) {
        samples->room = samples->room ? 2 * samples->room : 1 << 16;
        samples->value = realloc(samples->value, samples->room * sizeof *samples->value);
        if (!samples->value)
            die("no memory");
    }
    value = value < 0 ? 0 : value > UINT32_MAX ? UINT32_MAX : value;
    samples->value[samples->count++] = (uint32_t)value;
}

/* Submissions that are to be sent once more, the next one first. */
struct submission {
    uint64_t number, person, due_ns;
};
static struct submission *waiting;
static size_t waiting_begin, waiting_end, waiting_room;
static uint64_t submitted, settled;

static void ask_again(uint64_t number, uint64_t person, uint64_t due_ns)
{
    if (waiting_end - waiting_begin == waiting_room) {
        size_t room = waiting_room ? 2 * waiting_room : 1 << 12;
        struct submission *grown = malloc(room * sizeof *grown);
        if (!grown)
            die("no memory");
        for (size_t n = waiting_begin; n < waiting_end; n++)
            grown[n % room] = waiting[n % waiting_room];
        free(waiting);
        waiting = grown;
        waiting_room = room;
    }
    waiting[waiting_end++ % waiting_room] = (struct submission){number, person, due_ns};
}

static uint64_t random_u64(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

/* Queue one request; the caller flushes. */
static void put(struct peer *peer, uint64_t intended_ns, uint64_t number, uint64_t person)
{
    static const char digits[] = "0123456789abcdef";
    int place = peer->free[--peer->free_count];
    struct slot *slot = &peer->slots[place];
    slot->id = (slot->id + SLOTS_MAX) / SLOTS_MAX * SLOTS_MAX + (uint32_t)place;
    slot->intended_ns = intended_ns;
    slot->is_open = true;
    slot->is_measured = intended_ns >= begin_ns && intended_ns < end_ns;
    uint8_t *at = grow(&peer->out, request_bytes);
    memcpy(at, request, request_bytes);
    put_u32(at + id_at, slot->id);
    slot->number = number;
    slot->person = person;
    for (int n = 0; n < 16; n++)
        at[ticket_at + (size_t)n] = (uint8_t)digits[number >> (60 - 4 * n) & 15];
    memcpy(at + person_at, persons + person * INSZ_CHARS, INSZ_CHARS);
    if (number_at)
        put_u64(at + number_at, number);
    peer->out.end += request_bytes;
    sent++;
    in_flight++;
}

static void ask(struct peer *peer, uint64_t intended_ns)
{
    put(peer, intended_ns, ++submitted, random_u64() % persons_count);
}

static void fill(struct peer *peer)
{
    for (uint64_t now = now_ns(); is_sending && rate == 0 && peer->free_count > 0;)
        ask(peer, now);
}

static void take_answer(struct peer *peer, uint64_t tag, struct reader reader)
{
    if (tag != ANSWER)
        return; /* a Drain or Throttle */
    uint64_t id = take_number(&reader);
    struct reader exchange = take_binary(&reader);
    uint64_t code = take_number(&reader), now = now_ns();
    for (int field = 4; field < 11; field++)
        skip(&reader);
    uint64_t router_us = take_number(&reader);
    for (int field = 12; field < 15; field++)
        skip(&reader);
    struct reader payload = take_binary(&reader);
    struct slot *slot = &peer->slots[id % SLOTS_MAX];
    if (!slot->is_open || slot->id != id) {
        doubled++;
        return;
    }
    slot->is_open = false;
    peer->free[peer->free_count++] = (int)(id % SLOTS_MAX);
    answered++;
    in_flight--;
    answers_by_code[code & UINT16_MAX]++;
    if (seen_fd >= 0 && exchange.end - exchange.at == 16) {
        uint8_t rest[10] = {(uint8_t)(code >> 8), (uint8_t)code};
        put_u64(rest + 2, number_at ? slot->number : 0);
        add(&seen, exchange.at, 16);
        add(&seen, rest, sizeof rest);
    }
    if (number_at && code != ANSWERED_WITH_DATA)
        ask_again(slot->number, slot->person, now + AGAIN_NS);
    else if (number_at && payload.end > payload.at && random_u64() % 16 == 0)
        ask_again(slot->number, slot->person, now); /* it will be told what it knows */
    else
        settled++;
    window_answers += peer->read_ns >= begin_ns && peer->read_ns < end_ns;
    uint64_t service_ns = 0;
    if (code == ANSWERED_WITH_DATA && (size_t)(payload.end - payload.at) == answer_bytes)
        service_ns = get_big_endian(payload.at, 8);
    else
        wrong++;
    if (slot->is_measured) {
        note(&latencies, (int64_t)(peer->read_ns - slot->intended_ns - service_ns));
        note(&router_times, (int64_t)router_us * 1000);
    }
    fill(peer);
}

static void opened(struct peer *peer)
{
    open_count++;
    peer->free_count = 0;
    for (int n = outstanding; n > 0;)
        peer->free[peer->free_count++] = --n;
    fill(peer);
}

static void lost(struct peer *peer)
{
    closed++;
    open_count -= peer->free_count >= 0;
    for (int n = 0; n < outstanding; n++) {
        in_flight -= peer->slots[n].is_open;
        broken += peer->slots[n].is_open;
        if (number_at && peer->slots[n].is_open)
            ask_again(peer->slots[n].number, peer->slots[n].person, now_ns());
        peer->slots[n].is_open = false;
    }
    peer->free_count = -1; /* not open */
    if (!may_reconnect && is_sending)
        die("the router closed a connection, code %" PRIu64, peer->bye_code);
    peer->bye_code = 0;
}

static void dial(struct peer *peer)
{
    struct sockaddr_in address = address_of(atol(needed("port")));
    peer->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connect(peer->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) {
        close_peer(peer);
        return;
    }
    peer->state = CONNECTING;
    watch(peer, EPOLL_CTL_ADD, true);
}

static struct peer *free_peer(void)
{
    for (int tried = 0; tried < connections; tried++) {
        struct peer *peer = &peers[next_peer];
        next_peer = (next_peer + 1) % connections;
        if (peer->free_count > 0)
            return peer;
    }
    return NULL;
}

static void ask_what_waits(uint64_t now)
{
    struct peer *peer;
    while (waiting_begin < waiting_end && waiting[waiting_begin % waiting_room].due_ns <= now
           && (peer = free_peer())) {
        struct submission *again = &waiting[waiting_begin++ % waiting_room];
        put(peer, now, again->number, again->person);
        peer->is_touched = true;
    }
}

/* The next moment of a Poisson process. */
static void schedule(void)
{
    double uniform = ((double)(random_u64() >> 11) + 1) / 9007199254740993.0;
    next_ns += (uint64_t)(-log(uniform) / rate * 1e9);
}

/* Open loop: put what is due by the schedule on the connections in turn. What finds no free place
 * waits, and its time counts on from the moment for which it was scheduled. What still waits at the
 * end is sent after it: else the longest waits would be missing. */
static void ask_what_is_due(uint64_t now)
{
    while (next_ns <= now && (is_sending || next_ns < end_ns)) {
        struct peer *peer = free_peer();
        if (!peer) {
            stalls++;
            return;
        }
        if (next_ns >= begin_ns && next_ns < end_ns)
            note(&latenesses, (int64_t)(now - next_ns));
        ask(peer, next_ns);
        peer->is_touched = true;
        schedule();
    }
}

static int ascending(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

static void print_samples(const char *name, struct samples *samples)
{
    static const double shares[] = {0.5, 0.9, 0.99, 0.999, 1};
    static const char *names[] = {"p50", "p90", "p99", "p99_9", "max"};
    if (samples->count)
        qsort(samples->value, samples->count, sizeof *samples->value, ascending);
    printf(", \"%s\": {\"count\": %zu", name, samples->count);
    for (int n = 0; n < 5 && samples->count; n++) {
        size_t rank = (size_t)ceil(shares[n] * (double)samples->count);
        printf(", \"%s\": %.1f", names[n], samples->value[rank ? rank - 1 : 0] / 1e3);
    }
    putchar('}');
}

static double cpu_us(void)
{
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1e6
           + (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec);
}

static void print_result(double window_cpu_us)
{
    printf("{\"sent\": %" PRIu64 ", \"answered\": %" PRIu64 ", \"lost\": %" PRIu64
           ", \"doubled\": %" PRIu64 ", \"broken\": %" PRIu64 ", \"unanswered\": %" PRIu64
           ", \"wrong\": %" PRIu64 ", \"closed\": %" PRIu64 ", \"stalls\": %" PRIu64
           ", \"unsent\": %" PRIu64,
           sent, answered, sent - answered, doubled, broken, in_flight, wrong, closed, stalls,
           unsent);
    printf(", \"submitted\": %" PRIu64 ", \"unsettled\": %" PRIu64, submitted, submitted - settled);
    printf(", \"window_answers\": %" PRIu64 ", \"window_s\": %.6f, \"cpu_us\": %.0f, \"codes\": {",
           window_answers, (double)(end_ns - begin_ns) / 1e9, window_cpu_us);
    for (int code = 0, first = 1; code <= UINT16_MAX; code++)
        if (answers_by_code[code]) {
            printf("%s\"%d\": %" PRIu64, first ? "" : ", ", code, answers_by_code[code]);
            first = 0;
        }
    putchar('}');
    print_samples("latency_us", &latencies);
    print_samples("late_us", &latenesses);
    print_samples("router_us", &router_times);
    puts("}");
}

static void read_arguments(void)
{
    size_t size;
    connections = (int)number("connections", 64);
    outstanding = (int)number("outstanding", 16);
    if (connections < 1 || outstanding < 1 || outstanding > SLOTS_MAX)
        die("connections: from 1; outstanding: from 1 to %d", SLOTS_MAX);
    rate = real("rate", 0);
    random_state = (uint64_t)number("seed", 1) * 0x9e3779b97f4a7c15u;
    may_reconnect = number("reconnect", 0);
    request = read_file(needed("request"), &request_bytes);
    persons = read_file(needed("persons"), &size);
    persons_count = size / INSZ_CHARS;
    id_at = (size_t)atol(needed("id_at"));
    ticket_at = (size_t)atol(needed("ticket_at"));
    person_at = (size_t)atol(needed("person_at"));
    number_at = (size_t)number("number_at", 0);
    answer_bytes = (size_t)atol(needed("payload_bytes"));
    peers = calloc((size_t)connections, sizeof *peers);
    for (int n = 0; n < connections; n++)
        peers[n].free_count = -1;
}

/* Wait for what is ready, at most until the given moment. */
static void wait_until(uint64_t due_ns)
{
    struct epoll_event events[EVENTS_MAX];
    uint64_t now = now_ns(), wait_ns = due_ns > now ? due_ns - now : 0;
    struct timespec timeout = {(time_t)(wait_ns / SECOND_NS), (long)(wait_ns % SECOND_NS)};
    int count = epoll_pwait2(epoll_fd, events, EVENTS_MAX, &timeout, NULL);
    for (int n = 0; n < count; n++)
        on_ready(events[n].data.ptr, events[n].events);
}

static void work_until(uint64_t until_ns)
{
    for (uint64_t now = now_ns(); now < until_ns && !is_stopping; now = now_ns()) {
        uint64_t due_ns = now + RETRY_NS < until_ns ? now + RETRY_NS : until_ns;
        if (rate > 0)
            ask_what_is_due(now);
        ask_what_waits(now);
        for (int n = 0; n < connections; n++) {
            if (peers[n].state == CLOSED && peers[n].retry_ns <= now
                && (is_sending || waiting_begin < waiting_end))
                dial(&peers[n]);
            else if (peers[n].is_touched)
                flush(&peers[n]);
        }
        if (rate > 0 && is_sending && next_ns > now && next_ns < due_ns)
            due_ns = next_ns;
        if (!is_sending && !in_flight && waiting_begin == waiting_end)
            break;
        wait_until(due_ns);
        write_seen();
    }
}

static void say_goodbye(void)
{
    for (int n = 0; n < connections; n++)
        if (peers[n].state == OPEN) {
            frame(&peers[n], "\x93\x07\x01\xa0", 4);
            flush(&peers[n]);
            if (peers[n].state == OPEN)
                SSL_shutdown(peers[n].tls);
        }
}

static int generate(void)
{
    double seconds = real("seconds", 5), warmup_s = real("warmup", 1);
    read_arguments();
    make_context(false);
    on_message = take_answer;
    on_open = opened;
    on_closed = lost;
    begin_ns = end_ns = UINT64_MAX;
    next_ns = UINT64_MAX;
    is_sending = true;
    double kept_rate = rate;
    rate = 1e-9; /* nobody asks before everybody is connected */
    uint64_t limit_ns = now_ns() + DRAIN_NS;
    while (open_count < connections && now_ns() < limit_ns && !is_stopping)
        work_until(now_ns() + RETRY_NS / 10);
    if (open_count < connections)
        die("only %d of %d connections came about", open_count, connections);
    rate = kept_rate;
    uint64_t start_ns = next_ns = now_ns();
    begin_ns = start_ns + (uint64_t)(warmup_s * 1e9);
    end_ns = seconds > 0 ? begin_ns + (uint64_t)(seconds * 1e9) : UINT64_MAX;
    for (int n = 0; n < connections; n++) {
        fill(&peers[n]);
        flush(&peers[n]);
    }
    work_until(begin_ns);
    puts("begin");
    double cpu_before_us = cpu_us();
    work_until(end_ns);
    double window_cpu_us = cpu_us() - cpu_before_us;
    puts("end");
    end_ns = end_ns < now_ns() ? end_ns : now_ns();
    is_sending = false;
    is_stopping = 0;
    work_until(now_ns() + (number_at ? 4 : 1) * DRAIN_NS);
    for (; rate > 0 && next_ns < end_ns; unsent++)
        schedule();
    say_goodbye();
    print_result(window_cpu_us);
    return 0;
}

int main(int count, char **words)
{
    signal(SIGPIPE, SIG_IGN);
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    prctl(PR_SET_TIMERSLACK, 1);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a bench that was killed leaves nothing running */
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    arguments = words + (count > 2 ? 2 : count);
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
