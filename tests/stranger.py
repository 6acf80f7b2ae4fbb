"""A requester and a source, written from docs/protocol.md alone, with the standard library alone.

They share no code with the router, so that what only works because both ends are ours shows here.
Every line printed is one JSON object: what was done, and what came of it.

    python tests/stranger.py ask --port P --certificate C --key K --authorities A --router-uri URI
                                 [--steps hello,test,...] [--asking JSON] [--refused JSON]
    python tests/stranger.py supply --port P --certificate C --key K --authorities A ...
"""

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import signal
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from tests.stranger_bytes import ALPN, FRAME_MAX, Fault, Fields, Reader, frame_of
else:
    from stranger_bytes import ALPN, FRAME_MAX, Fault, Fields, Reader, frame_of


ITEM = ("service", "version", "person", "enterprise", "begin", "end", "source", "ticket", "payload")
SUBMISSION_OPEN = 9013

# Payloads that say how our own source is to behave.
FURTHER, HOLD, LET_GO, BREAK_OFF = b"one question", b"hold this", b"let go", b"break off"


# A connection.


def context(options: argparse.Namespace, purpose: ssl._SSLMethod) -> ssl.SSLContext:
    """TLS 1.3 with certificates on both sides, as the section Transport asks."""
    made = ssl.SSLContext(purpose)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_cert_chain(options.certificate, options.key)
    made.load_verify_locations(options.authorities)
    made.set_alpn_protocols([ALPN])
    if purpose == ssl.PROTOCOL_TLS_SERVER:
        made.num_tickets = 0
    return made


class Connection:
    """One side of a connection that shook hands."""

    def __init__(self, side: str, sock: ssl.SSLSocket, peer_uri: str) -> None:
        self.reader, self.sock = Reader(side), sock
        names = (sock.getpeercert() or {}).get("subjectAltName", ())
        uris = [name[1] for name in names if name[0] == "URI"]
        if sock.selected_alpn_protocol() != ALPN or uris != [peer_uri]:
            stop(f"not the router: {uris}, {sock.selected_alpn_protocol()}")
        self.inbox: list[tuple[str, Fields]] = []
        self.writing = threading.Lock()

    def send(self, *messages: tuple[str, Fields]) -> None:
        with self.writing:
            self.sock.sendall(b"".join(frame_of(*message) for message in messages))

    def receive(self) -> tuple[str, Fields]:
        """The next message; a Ping is answered already."""
        while not self.inbox:
            data = self.sock.recv(65_536)
            if not data:
                return "Truncated", {}
            try:
                self.inbox += self.reader.feed(data)
            except Fault as fault:
                self.send(("Bye", {"code": fault.code}))
                stop(f"the peer broke the protocol: {fault.code}")
        name, fields = self.inbox.pop(0)
        if name == "Ping":
            self.send(("Pong", fields))
        return name, fields

    def close(self) -> None:
        """Close TLS, and the connection, whether or not the peer closes it too."""
        try:
            self.sock.settimeout(2)
            self.sock.unwrap().close()
        except (OSError, ValueError):
            self.sock.close()


def say(done: str, **found: object) -> None:
    print(json.dumps({"step": done, **found}), flush=True)


def stop(why: str) -> NoReturn:
    say("failed", why=why)
    os._exit(1)


# The requester.


class Requester:
    """Takes the steps of a conversation, one method each."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.asking = options, json.loads(options.asking)
        self.submitting = {**self.asking, **json.loads(options.submitting)}
        self.ticket = str(uuid.uuid4())
        self.dial()
        self.throttles: list[Fields] = []
        self.drains: list[Fields] = []

    def dial(self) -> None:
        options = self.options
        sock = socket.create_connection((options.host, options.port), timeout=options.patience)
        tls = context(options, ssl.PROTOCOL_TLS_CLIENT).wrap_socket(sock)
        self.connection = Connection("requester", tls, options.router_uri)
        self.next_id, self.window, self.waiting = 1, 1, set[int]()

    def request(self, **fields: Any) -> tuple[str, Fields]:
        number, self.next_id = self.next_id, self.next_id + 1
        self.waiting.add(number)
        return "Request", {"id": number, "ticket": f"stranger-{number}", **fields}

    def await_(self, wanted: str) -> Fields:
        """The next message of a kind; notices that come before it are kept."""
        while True:
            name, fields = self.connection.receive()
            if name == "Answer":
                if fields["id"] not in self.waiting:
                    stop("an answer that nobody waits for")
                self.waiting.remove(fields["id"])
                if fields["code"] // 1000 != fields["stage"]:
                    stop("the stage is not that of the code")
                if (fields["retry_at_ms"] is not None) != (fields["action"] == 3):
                    stop("when to come back is said with RETRY_AT and with nothing else")
            if name == "Throttle":
                self.throttles.append(fields)
            if name == "Drain":
                self.drains.append(fields)
            if name == wanted:
                return fields
            if name in ("Bye", "Truncated"):
                stop(f"{name} {fields} instead of {wanted}")

    def ask(self, *requests: tuple[str, Fields]) -> list[Fields]:
        """Send requests in one piece, and wait for all answers in whatever order."""
        self.connection.send(*requests)
        return [self.await_("Answer") for _ in requests]

    def hello(self) -> None:
        offer = {"versions": [1], "speaker": 1, "agent": "stranger", "frame_bytes_max": FRAME_MAX}
        self.connection.send(("Hello", offer))
        welcome = self.await_("Welcome")
        self.window = max(1, welcome["inflight_max"])
        say("hello", window=self.window, frame_bytes_max=welcome["frame_bytes_max"])

    def test(self) -> None:
        (answer,) = self.ask(self.request(service="TestConnectionService", version=1))
        say("test", **shown(answer), seen=json.loads(answer["payload"]))

    def consult(self) -> None:
        (answer,) = self.ask(self.request(**self.asking, payload=FURTHER))
        say("consult", **shown(answer))

    def pipeline(self) -> None:
        """Many requests, never more of them in flight than the Welcome allowed."""
        left = [self.request(**self.asking, payload=b"%d" % n) for n in range(self.options.many)]
        asked = {fields["id"]: fields["payload"] for _, fields in left}
        flying, most, answers = 0, 0, list[Fields]()
        while len(answers) < len(asked):
            room = self.window - flying
            batch, left = left[:room], left[room:]
            self.connection.send(*batch)
            flying += len(batch)
            most = max(most, flying)
            answers.append(self.await_("Answer"))
            flying -= 1
        exact = all(answer["payload"].endswith(asked[answer["id"]]) for answer in answers)
        codes = sorted({answer["code"] for answer in answers})
        say("pipeline", answers=len(answers), codes=codes, most_in_flight=most, matched=exact)

    def refuse(self) -> None:
        wrong = {**self.asking, **json.loads(self.options.refused)}
        (answer,) = self.ask(self.request(**wrong))
        say("refuse", **shown(answer))

    def envelope(self) -> None:
        """What is no item, what is refused and what is answered, in one; one Answer each."""
        service, version, person = (self.asking[name] for name in ("service", "version", "person"))
        whole = [service, version, person, None, None, None, None, "own", b"enclosed"]
        items = ["no item", [service, version + 90, person], whole]
        first, self.next_id = self.next_id, self.next_id + len(items)
        self.waiting.update(range(first, self.next_id))
        shared = {name: value for name, value in self.asking.items() if name not in ITEM}
        self.connection.send(
            ("Envelope", {"id": first, "requests": items, "ticket": "shared", **shared})
        )
        answers = sorted((self.await_("Answer") for _ in items), key=lambda answer: answer["id"])
        exchanges = {answer["exchange"] for answer in answers}
        say("envelope", answers=[shown(answer) for answer in answers], exchanges=len(exchanges))

    def submission(self, payload: bytes, ticket: str) -> tuple[str, Fields]:
        return self.request(**{**self.submitting, "payload": payload, "ticket": ticket})

    def settled(self, payload: bytes, ticket: str) -> tuple[Fields, int]:
        """Send a submission until it is not under way any more, each time when it is told to."""
        for times in range(10):
            (answer,) = self.ask(self.submission(payload, ticket))
            if answer["code"] != SUBMISSION_OPEN:
                return answer, times
            self.listen_until(answer["retry_at_ms"])
        stop("a submission stays under way")

    def listen_until(self, moment_ms: int) -> None:
        """Wait for a moment, and answer Pings meanwhile."""
        sock = self.connection.sock
        while (left_s := moment_ms / 1000 - time.time()) > 0:
            sock.settimeout(left_s)
            with contextlib.suppress(TimeoutError):
                name, fields = self.connection.receive()
                if name in ("Bye", "Truncated"):
                    stop(f"{name} {fields} while it waited")
        sock.settimeout(self.options.patience)

    def submit(self) -> None:
        """Be told that it is under way, lose the connection, and come again as told."""
        twice = [self.submission(HOLD, self.ticket) for _ in range(2)]
        self.connection.send(*twice)
        under_way = self.await_("Answer")
        if under_way["id"] != twice[1][1]["id"]:
            stop("the first was answered, though the source holds it")
        self.connection.sock.close()  # neither Bye nor a TLS close
        self.dial()
        self.hello()
        self.listen_until(under_way["retry_at_ms"])
        (freed,) = self.ask(self.submission(LET_GO, str(uuid.uuid4())))
        answer, _ = self.settled(HOLD, self.ticket)
        again, _ = self.settled(HOLD, self.ticket)
        say("submit", under_way=shown(under_way), freed=freed["code"], first=shown(answer),
            again=shown(again), digest=hashlib.sha256(b"taken: " + HOLD).hexdigest())  # fmt: skip

    def reuse(self) -> None:
        """The ticket of that submission, with other content."""
        (answer,) = self.ask(self.submission(b"another decision", self.ticket))
        say("reuse", **shown(answer))

    def unknown(self) -> None:
        """The source breaks off before it replies; the retry reaches it as a repeat."""
        ticket = str(uuid.uuid4())
        (lost,) = self.ask(self.submission(BREAK_OFF, ticket))
        answer, _ = self.settled(BREAK_OFF, ticket)
        say("unknown", lost=shown(lost), answer=shown(answer))

    def overrun(self) -> None:
        """More than the window at once: what is beyond it is refused, with a notice."""
        beyond = 3
        requests = [self.request(**self.asking) for _ in range(self.window + beyond)]
        answers = self.ask(*requests)
        refused = [answer for answer in answers if answer["code"] == 21]
        say("overrun", answers=len(answers), refused=len(refused), throttles=self.throttles,
            first=shown(refused[0]) if refused else None)  # fmt: skip

    def ping(self) -> None:
        self.connection.send(("Ping", {"number": (1 << 64) - 1}))
        say("ping", pong=self.await_("Pong")["number"])

    def pinged(self) -> None:
        """Keep silent until the router pings."""
        say("silent")
        say("pinged", number=self.await_("Ping")["number"])

    def drained(self) -> None:
        """A request in flight while the router goes: answered, then a Bye."""
        self.connection.send(self.request(**self.asking, payload=b"the last"))
        say("in flight")
        drain = self.await_("Drain")
        late = self.request(**self.asking, payload=b"too late")
        self.connection.send(late)
        say("draining")
        answers = [self.await_("Answer"), self.await_("Answer")]
        bye = self.await_("Bye")
        codes = {answer["id"]: answer["code"] for answer in answers}
        say("drained", seconds=drain["seconds"], bye=bye["code"], codes=codes, late=late[1]["id"])

    def bye(self) -> None:
        self.connection.send(("Bye", {"code": 1}))
        say("bye")


def shown(answer: Fields) -> Fields:
    """An answer, printable."""
    return answer | {"exchange": answer["exchange"].hex(), "payload": answer["payload"].decode()}


def ask(options: argparse.Namespace) -> None:
    requester = Requester(options)
    for step in options.steps.split(","):
        getattr(requester, step)()
    requester.connection.close()
    if requester.waiting:
        stop(f"never answered: {requester.waiting}")
    say("done")


# The source.


class Supplier:
    """What the connections of a source share: what it acted on, and what it holds back."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.stopping = options, threading.Event()
        self.lock, self.replies = threading.Lock(), dict[bytes, Fields]()
        self.held: list[tuple[Connection, Fields]] | None = []

    def take(self, connection: Connection, delivery: Fields) -> bool:
        """Act on a delivery, once for each exchange, and reply; say whether to break off."""
        exchange, question = delivery["exchange"], delivery["payload"]
        say("delivered", **{key: value for key, value in delivery.items()
                            if key not in ("payload", "exchange")},
            exchange=exchange.hex(), question=question.decode())  # fmt: skip
        with self.lock:
            is_new = exchange not in self.replies
            if not is_new and not delivery["repeat"]:
                stop("delivered before, and not marked as a repeat")
            if is_new:
                self.replies[exchange] = self.act(delivery)
            reply = {"id": delivery["id"], **self.replies[exchange]}
            due = [(connection, reply)]
            if question == HOLD and self.held is not None:
                self.held.append(due.pop())
            if question == LET_GO and self.held is not None:
                due, self.held = self.held + due, None
        if is_new and question == BREAK_OFF:
            return True
        for asker, what in due:
            asker.send(("Reply", what))
        return False

    def act(self, delivery: Fields) -> Fields:
        """What the section "What a source does" asks; the reply, without its id."""
        say("acted", exchange=delivery["exchange"].hex())
        question, groups = delivery["payload"], " ".join(delivery["groups"]).encode()
        is_submitted = delivery["service"] == self.options.takes
        return {
            "outcome": 0, "person": delivery["person"],
            "persons": json.loads(self.options.further) if question == FURTHER else [],
            "application": self.options.application, "source_code": "OK",
            "payload": (b"taken: " if is_submitted else b"groups " + groups + b"; ") + question,
        }  # fmt: skip


def supply(options: argparse.Namespace) -> None:
    """Accept routers until told to stop; SIGTERM drains."""
    tls, listener = context(options, ssl.PROTOCOL_TLS_SERVER), socket.create_server(
        ("127.0.0.1", options.port)
    )  # fmt: skip
    supplier = Supplier(options)

    def leave(*_: object) -> None:
        supplier.stopping.set()
        listener.shutdown(socket.SHUT_RDWR)

    signal.signal(signal.SIGTERM, leave)
    say("listening")
    threads = []
    while not supplier.stopping.is_set():
        try:
            sock, _ = listener.accept()
            sock.settimeout(options.patience)
            connection = Connection("source", tls.wrap_socket(sock, server_side=True),
                                    options.router_uri)  # fmt: skip
        except OSError:
            continue
        threads.append(threading.Thread(target=serve, args=(connection, supplier)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    say("done")


def serve(connection: Connection, supplier: Supplier) -> None:
    ends = False
    connection.sock.settimeout(0.2)
    while True:
        if supplier.stopping.is_set() and not ends:
            connection.send(("Drain", {"seconds": 5}))
            ends = True
        try:
            name, fields = connection.receive()
        except TimeoutError:
            if ends:
                connection.send(("Bye", {"code": 1}))
                break
            continue
        if name == "Hello":
            say("greeted", speaker=fields["speaker"])
            connection.send(
                ("Welcome", {"version": 1, "agent": "stranger", "frame_bytes_max": FRAME_MAX,
                             "inflight_max": supplier.options.many}),
                ("Ping", {"number": 5}),
            )  # fmt: skip
        elif name == "Pong":
            say("ping", pong=fields["number"])
        elif name == "Delivery":
            if supplier.take(connection, fields):
                connection.sock.close()
                return
        elif name in ("Bye", "Truncated"):
            say("left", how=name, code=fields.get("code"))
            break
    connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(required=True)
    runs: dict[str, Callable[[argparse.Namespace], None]] = {"ask": ask, "supply": supply}
    for verb, run in runs.items():
        sub = verbs.add_parser(verb)
        sub.set_defaults(run=run)
        for option in ("certificate", "key", "authorities", "router-uri"):
            sub.add_argument(f"--{option}", required=True)
        sub.add_argument("--host", default="127.0.0.1")
        sub.add_argument("--port", type=int, required=True)
        sub.add_argument("--patience", type=float, default=20.0)
        sub.add_argument("--steps", default="hello,test,consult,pipeline,refuse,ping,bye")
        sub.add_argument("--asking", default="{}")
        sub.add_argument("--refused", default="{}")
        sub.add_argument("--submitting", default="{}")
        sub.add_argument("--takes", default="", help="the service that is a submission")
        sub.add_argument("--further", default="[]")
        sub.add_argument("--application")
        sub.add_argument("--many", type=int, default=20)
    options = parser.parse_args()
    found = map(importlib.util.find_spec, ("ksz_router", "msgspec", "trio", "cryptography"))
    say("start", foreign=[spec.name for spec in found if spec is not None])
    options.run(options)


if __name__ == "__main__":
    main()
