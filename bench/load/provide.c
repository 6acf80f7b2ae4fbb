/* The source: answers at once what it is asked; the dialect knows in which words. */

#include "load.h"

static uint64_t deliveries, connections_made;
static int listener;

size_t supply_bytes_for(size_t payload_bytes)
{
    return payload_bytes < 8 ? 8 : payload_bytes > UINT16_MAX ? UINT16_MAX : payload_bytes;
}

void note_delivery(const uint8_t *exchange, bool is_repeat, const uint8_t *payload, size_t bytes)
{
    uint8_t what = is_repeat;
    deliveries++;
    if (exchange && bytes >= 8)
        see(exchange, &what, 1, get_big_endian(payload, 8));
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

static void welcome(void)
{
    connections_made += accept_on(listener) != NULL;
}

static void joined(struct peer *peer)
{
    (void)peer;
    connections_made++;
}

static void left(struct peer *peer)
{
    if (!is_stopping)
        die("connection %d to the server of this source ended", peer->index);
}

/* On a NATS server a source is no listener: it dials, as often as the router would dial it. */
static void dial_all(uint64_t connections)
{
    on_open = joined;
    on_closed = left;
    struct peer *peers = calloc(connections, sizeof *peers);
    for (uint64_t n = 0; n < connections; n++) {
        peers[n].index = (int)n;
        dial(&peers[n], atol(needed("port")));
    }
    while (connections_made < connections && !is_stopping)
        wait_until(now_ns() + SECOND_NS, NULL);
}

int provide(void)
{
    make_context(dialect == &frames);
    if (dialect == &frames) {
        on_closed = forget;
        listener = listen_on(atol(needed("port")));
    } else
        dial_all((uint64_t)number("connections", 2));
    puts("ready");
    while (!is_stopping) {
        wait_until(now_ns() + SECOND_NS, welcome);
        free_forgotten();
        write_seen();
    }
    printf("{\"deliveries\": %" PRIu64 ", \"connections\": %" PRIu64 "}\n", deliveries,
           connections_made);
    return 0;
}
