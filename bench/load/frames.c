/* The router's protocol, docs/protocol.md: as much of it as both ends of a bench need. */

#include "load.h"

enum { HELLO = 1, WELCOME = 2, PING = 3, PONG = 4, BYE = 7, REQUEST = 16, ANSWER = 17,
       DELIVERY = 18, REPLY = 19 };
enum { FRAME_BYTES_MAX = 1 << 20 };

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

/* ---- messages ---- */

static void frame(struct peer *peer, const void *body, size_t size)
{
    uint8_t length[4];
    put_u32(length, (uint32_t)size);
    add(&peer->out, length, 4);
    add(&peer->out, body, size);
}

/* Queue what a source answers: a head, and behind it as many bytes as it was sent. */
static void supply(struct peer *peer, uint8_t *head, size_t size, struct reader payload)
{
    static uint8_t sent[UINT16_MAX];
    size_t supply_bytes = supply_bytes_for((size_t)(payload.end - payload.at));
    head[size] = 0xc5;
    head[size + 1] = (uint8_t)(supply_bytes >> 8);
    head[size + 2] = (uint8_t)supply_bytes;
    size += 3;
    put_u32(head, (uint32_t)(size - 4 + supply_bytes));
    put_u64(sent, now_ns() - peer->read_ns);
    add(&peer->out, head, size);
    add(&peer->out, sent, supply_bytes);
}

static void answer_delivery(struct peer *peer, struct reader reader)
{
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
    size += person_bytes;
    memcpy(head + size, "\x90\xc0\xc0\xa0", 4);
    supply(peer, head, size + 4, payload);
    bool has_exchange = exchange.end - exchange.at == 16;
    note_delivery(has_exchange ? exchange.at : NULL, is_repeat, payload.at,
                  (size_t)(payload.end - payload.at));
}

/* Answer as the router would, with a payload and one recipient: no router is between. */
static void answer_request(struct peer *peer, struct reader reader)
{
    static const uint8_t rest[] =
        "\xc4\x10" "0123456789abcdef"                       /* exchange */
        "\xcd\x27\x11\x0a\xa8" "MSG00000" "\xaa" "DATA_FOUND" /* code, stage, official, status */
        "\x00\xa8" "00000000" "\x80\xc0"                    /* action, generation, detail, retry */
        "\xcd\x00\x00\xcd\x00\x00"                          /* router_us, source_us */
        "\x91\x93\xaa" "0999010126" "\xcd\x27\x11\xa0\x90";  /* recipients, persons */
    uint8_t head[128] = {0, 0, 0, 0, 0xdc, 0, 16, ANSWER, 0xce};
    put_u32(head + 9, (uint32_t)take_number(&reader));
    for (int field = 2; field < 22; field++)
        skip(&reader);
    struct reader payload = take_binary(&reader);
    memcpy(head + 13, rest, sizeof rest - 1);
    supply(peer, head, 13 + sizeof rest - 1, payload);
    note_delivery(NULL, false, payload.at, (size_t)(payload.end - payload.at));
}

/* Take the answer to a request of the generator. */
static void read_answer(struct peer *peer, struct reader reader)
{
    struct answer answer = {.id = take_number(&reader)};
    struct reader exchange = take_binary(&reader);
    answer.exchange = exchange.end - exchange.at == 16 ? exchange.at : NULL;
    answer.code = take_number(&reader);
    for (int field = 4; field < 11; field++)
        skip(&reader);
    answer.router_us = take_number(&reader);
    for (int field = 12; field < 15; field++)
        skip(&reader);
    struct reader payload = take_binary(&reader);
    answer.payload = payload.at;
    answer.payload_bytes = (size_t)(payload.end - payload.at);
    take_answer(peer, &answer);
}

static void greet(struct peer *peer)
{
    frame(peer, "\x95\x01\x91\x01\x01\xa5" "bench" "\xce\x00\x10\x00\x00", 16);
}

static void part(struct peer *peer)
{
    frame(peer, "\x93\x07\x01\xa0", 4);
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
    case ANSWER:
        read_answer(peer, reader);
        break;
    case DELIVERY:
        answer_delivery(peer, reader);
        break;
    case REQUEST:
        answer_request(peer, reader);
        break; /* of any other tag: a Drain or Throttle */
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

static const uint8_t ALPN[] = "\x0cksz-router/1";

const struct dialect frames = {
    .alpn = ALPN,
    .alpn_bytes = sizeof ALPN - 1,
    .greet = greet,
    .take = take_frames,
    .part = part,
};
