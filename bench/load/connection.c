/* TLS connections, all in one epoll: dialled or accepted, read, written, closed. */

#include "load.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

const struct dialect *dialect;
void (*on_open)(struct peer *), (*on_closed)(struct peer *);

static int epoll_fd;
static SSL_CTX *context;

static int choose_alpn(SSL *tls, const uint8_t **out, uint8_t *out_length, const uint8_t *in,
                       unsigned in_length, void *unused)
{
    (void)tls, (void)unused;
    int chosen = SSL_select_next_proto((uint8_t **)out, out_length, dialect->alpn,
                                       dialect->alpn_bytes, in, in_length);
    return chosen == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

void make_context(bool is_server)
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
    else if (dialect->alpn)
        SSL_CTX_set_alpn_protos(context, dialect->alpn, dialect->alpn_bytes);
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

void flush(struct peer *peer)
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

static void shake_hands(struct peer *peer)
{
    int done = SSL_do_handshake(peer->tls);
    if (done == 1) {
        peer->state = GREETING;
        watch(peer, EPOLL_CTL_MOD, false);
        if (!SSL_is_server(peer->tls)) {
            dialect->greet(peer);
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

static void receive(struct peer *peer)
{
    for (;;) {
        int got = SSL_read(peer->tls, grow(&peer->in, 1 << 16), 1 << 16);
        if (got > 0) {
            peer->in.end += (size_t)got;
            peer->read_ns = now_ns();
            dialect->take(peer);
            if (SSL_has_pending(peer->tls))
                continue;
            break; /* if there is more, the epoll says so: that is cheaper than to try */
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

/* Take the one line that comes in plain, and nothing behind it. */
static void take_line(struct peer *peer)
{
    char line[4096];
    ssize_t got = recv(peer->fd, line, sizeof line, MSG_PEEK);
    const char *end = got > 0 ? memchr(line, '\n', (size_t)got) : NULL;
    if (end && recv(peer->fd, line, (size_t)(end + 1 - line), 0) == end + 1 - line) {
        begin_tls(peer, false);
        peer->state = SHAKING_HANDS;
    } else if (got == 0 || got == sizeof line || (got < 0 && errno != EAGAIN))
        close_peer(peer);
}

static void on_connected(struct peer *peer)
{
    int fault = 0;
    socklen_t size = sizeof fault;
    getsockopt(peer->fd, SOL_SOCKET, SO_ERROR, &fault, &size);
    if (fault) {
        close_peer(peer);
        return;
    }
    peer->state = AWAITING_A_LINE;
    watch(peer, EPOLL_CTL_MOD, false);
    if (!dialect->has_a_line_first) {
        begin_tls(peer, false);
        peer->state = SHAKING_HANDS;
    }
}

static void on_ready(struct peer *peer, uint32_t events)
{
    if (peer->state == CONNECTING)
        on_connected(peer);
    if (peer->state == AWAITING_A_LINE)
        take_line(peer);
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

int listen_on(long port)
{
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = address_of(port);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 256))
        die("cannot listen on port %ld: %s", port, strerror(errno));
    struct epoll_event event = {EPOLLIN, {.ptr = NULL}};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event);
    return listener;
}

struct peer *accept_on(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return NULL;
    struct peer *peer = calloc(1, sizeof *peer);
    if (!peer)
        die("no memory");
    peer->fd = fd;
    begin_tls(peer, true);
    peer->state = SHAKING_HANDS;
    watch(peer, EPOLL_CTL_ADD, false);
    return peer;
}

void dial(struct peer *peer, long port)
{
    struct sockaddr_in address = address_of(port);
    peer->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connect(peer->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) {
        close_peer(peer);
        return;
    }
    peer->state = CONNECTING;
    watch(peer, EPOLL_CTL_ADD, true);
}

void open_epoll(void)
{
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
}

void wait_until(uint64_t due_ns, void (*on_arrival)(void))
{
    struct epoll_event events[EVENTS_MAX];
    uint64_t now = now_ns(), wait_ns = due_ns > now ? due_ns - now : 0;
    struct timespec timeout = {(time_t)(wait_ns / SECOND_NS), (long)(wait_ns % SECOND_NS)};
    int count = epoll_pwait2(epoll_fd, events, EVENTS_MAX, &timeout, NULL);
    for (int n = 0; n < count; n++) {
        if (events[n].data.ptr)
            on_ready(events[n].data.ptr, events[n].events);
        else
            on_arrival();
    }
}
