/* The protocol of a NATS server: as much of it as both ends of a bench need.
 *
 * The generator publishes to one subject and has one inbox per connection, under which, given
 * ``token_at``, each request has a place of its own, as in the client libraries of NATS. The source
 * is in a queue group on the subject, and publishes to the inbox that a message names. Either way
 * the correlation id stands in bytes 8 to 11 of the payload, which comes back as it was but for the
 * first eight bytes.
 */

#include "load.h"

enum { LINE_BYTES_MAX = 4096, WORDS_MAX = 5, ID_AT = 8, ID_BYTES = 4 };

static void greet(struct peer *peer)
{
    char line[1024];
    const char *subject = text("subject"); /* only a source has one */
    int size = snprintf(line, sizeof line,
                        "CONNECT {\"verbose\":false,\"pedantic\":false,\"tls_required\":true,"
                        "\"name\":\"bench\",\"lang\":\"c\",\"version\":\"1\",\"protocol\":1}\r\n");
    size_t room = sizeof line - (size_t)size;
    if (subject)
        size += snprintf(line + size, room, "SUB %s source 1\r\nPING\r\n", subject);
    else
        size += snprintf(line + size, room, "SUB %s%04d%s 1\r\nPING\r\n", needed("inbox"),
                         peer->index, text("token_at") ? ".*" : "");
    if (size >= (int)sizeof line)
        die("the subject is too long");
    add(&peer->out, line, (size_t)size);
}

static void part(struct peer *peer)
{
    (void)peer; /* who closes has said enough */
}

struct word {
    const uint8_t *at;
    size_t bytes;
};

/* Split the line at its spaces; return how many words it has. */
static int split(const uint8_t *at, const uint8_t *end, struct word *words)
{
    for (int count = 0;; count++) {
        const uint8_t *space = memchr(at, ' ', (size_t)(end - at));
        if (count == WORDS_MAX)
            die("a line of too many words");
        words[count] = (struct word){at, (size_t)((space ? space : end) - at)};
        if (!space)
            return count + 1;
        at = space + 1;
    }
}

/* Publish as many bytes to the inbox as came. */
static void supply(struct peer *peer, struct word inbox, const uint8_t *payload, size_t bytes)
{
    char size[24];
    uint8_t service[8];
    size_t supply_bytes = supply_bytes_for(bytes);
    add(&peer->out, "PUB ", 4);
    add(&peer->out, inbox.at, inbox.bytes);
    add(&peer->out, size, (size_t)snprintf(size, sizeof size, " %zu\r\n", supply_bytes));
    put_u64(service, now_ns() - peer->read_ns);
    add(&peer->out, service, sizeof service);
    add(&peer->out, payload + sizeof service, supply_bytes - sizeof service);
    add(&peer->out, "\r\n", 2);
    note_delivery(NULL, false, payload, bytes);
}

/* Take ``MSG subject sid [inbox] bytes`` and its payload; return how many bytes both are, or 0 if
 * they are not all there. */
static size_t take_publication(struct peer *peer, const uint8_t *at, const uint8_t *newline,
                               const uint8_t *end)
{
    struct word words[WORDS_MAX];
    int count = split(at, newline - 1, words);
    const uint8_t *payload = newline + 1;
    size_t bytes = 0;
    for (size_t n = 0; n < words[count - 1].bytes; n++)
        bytes = bytes * 10 + (words[count - 1].at[n] - '0');
    if ((size_t)(end - payload) < bytes + 2)
        return 0;
    if (count < 4 || bytes < ID_AT + ID_BYTES)
        die("a message without a place for its id");
    if (count == 5)
        supply(peer, words[3], payload, bytes);
    else
        take_answer(peer, &(struct answer){.id = get_big_endian(payload + ID_AT, ID_BYTES),
                                           .code = ANSWERED_WITH_DATA,
                                           .payload = payload,
                                           .payload_bytes = bytes});
    return (size_t)(payload + bytes + 2 - at);
}

static void take_line(struct peer *peer, const uint8_t *at, const uint8_t *newline)
{
    if (!memcmp(at, "PING", 4))
        add(&peer->out, "PONG\r\n", 6);
    else if (!memcmp(at, "PONG", 4)) {
        peer->state = OPEN;
        on_open(peer);
    } else if (!memcmp(at, "-ERR", 4))
        die("the server says: %.*s", (int)(newline - at), at);
    else if (memcmp(at, "INFO", 4))
        die("a line that no client expects: %.*s", (int)(newline - at), at);
}

static void take_lines(struct peer *peer)
{
    struct bytes *in = &peer->in;
    while (in->end - in->begin >= 6) {
        const uint8_t *at = in->data + in->begin, *end = in->data + in->end;
        const uint8_t *newline = memchr(at, '\n', (size_t)(end - at));
        if (!newline) {
            if (end - at > LINE_BYTES_MAX)
                die("a line without an end");
            break;
        }
        size_t size = (size_t)(newline + 1 - at);
        if (size < 6)
            die("a line of %zu bytes", size);
        if (!memcmp(at, "MSG ", 4))
            size = take_publication(peer, at, newline, end);
        else
            take_line(peer, at, newline);
        if (!size)
            break;
        in->begin += size;
    }
}

const struct dialect nats = {
    .has_a_line_first = true,
    .greet = greet,
    .take = take_lines,
    .part = part,
};
