/* The generator: puts a load on a router, and counts and times what comes back. */

#include "load.h"

#include <math.h>
#include <sys/resource.h>

enum { INBOX_DIGITS = 4, TOKEN_DIGITS = 8 };
#define AGAIN_NS (200 * 1000000ull)
#define DRAIN_NS (15 * SECOND_NS)

static struct peer *peers;
static int connections, outstanding, open_count, next_peer;
static uint8_t *request, *persons;
static size_t request_bytes, persons_count, id_at, ticket_at, person_at, number_at, inbox_at,
    token_at, answer_bytes;
static uint64_t sent, answered, doubled, broken, closed, wrong, in_flight, stalls, window_answers;
static uint64_t unsent; /* what was scheduled, and found no free place until the very end */
static uint64_t next_ns, begin_ns, end_ns, random_state, answers_by_code[UINT16_MAX + 1];
static double rate;
static long port;
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
    for (int n = 0; ticket_at && n < 16; n++)
        at[ticket_at + (size_t)n] = (uint8_t)digits[number >> (60 - 4 * n) & 15];
    if (person_at)
        memcpy(at + person_at, persons + person * INSZ_CHARS, INSZ_CHARS);
    if (number_at)
        put_u64(at + number_at, number);
    for (int n = INBOX_DIGITS, rest = peer->index; inbox_at && n-- > 0; rest /= 10)
        at[inbox_at + (size_t)n] = (uint8_t)digits[rest % 10];
    for (int n = 0; token_at && n < TOKEN_DIGITS; n++)
        at[token_at + (size_t)n] = (uint8_t)digits[slot->id >> (28 - 4 * n) & 15];
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

void take_answer(struct peer *peer, const struct answer *answer)
{
    uint64_t id = answer->id, code = answer->code, now = now_ns();
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
    if (answer->exchange) {
        uint8_t what[2] = {(uint8_t)(code >> 8), (uint8_t)code};
        see(answer->exchange, what, sizeof what, number_at ? slot->number : 0);
    }
    if (number_at && code != ANSWERED_WITH_DATA)
        ask_again(slot->number, slot->person, now + AGAIN_NS);
    else if (number_at && answer->payload_bytes > 0 && random_u64() % 16 == 0)
        ask_again(slot->number, slot->person, now); /* it will be told what it knows */
    else
        settled++;
    window_answers += peer->read_ns >= begin_ns && peer->read_ns < end_ns;
    uint64_t service_ns = 0;
    if (code == ANSWERED_WITH_DATA && answer->payload_bytes == answer_bytes)
        service_ns = get_big_endian(answer->payload, 8);
    else
        wrong++;
    if (slot->is_measured) {
        note(&latencies, (int64_t)(peer->read_ns - slot->intended_ns - service_ns));
        note(&router_times, (int64_t)answer->router_us * 1000);
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

/* All of one kind, in the order in which the answers came: nanoseconds, 32 bits, of this machine. */
static void write_samples(const char *file, const struct samples *samples)
{
    FILE *out = file ? fopen(file, "wb") : NULL;
    if (file
        && (!out || fwrite(samples->value, sizeof *samples->value, samples->count, out)
                        != samples->count || fclose(out)))
        die("%s cannot be written", file);
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
    ticket_at = (size_t)number("ticket_at", 0);
    person_at = (size_t)number("person_at", 0);
    number_at = (size_t)number("number_at", 0);
    inbox_at = (size_t)number("inbox_at", 0);
    token_at = (size_t)number("token_at", 0);
    port = atol(needed("port"));
    answer_bytes = (size_t)atol(needed("payload_bytes"));
    peers = calloc((size_t)connections, sizeof *peers);
    for (int n = 0; n < connections; n++)
        peers[n] = (struct peer){.index = n, .free_count = -1};
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
                dial(&peers[n], port);
            else if (peers[n].is_touched)
                flush(&peers[n]);
        }
        if (rate > 0 && is_sending && next_ns > now && next_ns < due_ns)
            due_ns = next_ns;
        if (!is_sending && !in_flight && waiting_begin == waiting_end)
            break;
        wait_until(due_ns, NULL);
        write_seen();
    }
}

static void say_goodbye(void)
{
    for (int n = 0; n < connections; n++)
        if (peers[n].state == OPEN) {
            dialect->part(&peers[n]);
            flush(&peers[n]);
            if (peers[n].state == OPEN)
                SSL_shutdown(peers[n].tls);
        }
}

int generate(void)
{
    double seconds = real("seconds", 5), warmup_s = real("warmup", 1);
    read_arguments();
    make_context(false);
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
    write_samples(text("latencies"), &latencies);
    print_result(window_cpu_us);
    return 0;
}
