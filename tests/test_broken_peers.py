"""The table of broken peers in docs/protocol.md: each row has its test, some of them here."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from contrib import vector_bytes as v
from ksz_router.codes import Code
from ksz_router.limits import first_byte_seconds_max, handshake_seconds_max
from ksz_router.wire import Drain, Pong
from tests.daemon_ground import Ground
from tests.daemon_parts import in_trio, parts
from tests.daemon_peers import Caller
from tests.test_wire_document import section, tables
from tests.worlds import RVA, ask

_VECTORS = "test_wire_vectors.py::test_a_fault_of_the_peer_ends_the_connection_with_its_code"
_CERTIFICATE = "test_link_handshake.py::test_a_caller_whose_certificate_does_not_do_is_refused"

ROWS = {
    "no first byte in 3 s, no handshake in 5 s from the first byte":
        "test_broken_peers.py::test_who_says_nothing_or_half_a_greeting_of_tls_is_closed",
    "bytes that are no TLS": "test_daemon_sources.py::test_who_speaks_no_tls_gets_no_session",
    "a TLS older than 1.3": "test_link_handshake.py::test_an_older_tls_is_not_spoken",
    "many connections of one address that have not shaken hands":
        "test_daemon_server.py::test_a_flood_of_silent_ones_of_the_own_address_locks_nobody_out",
    "more than 2,048 connections at a worker that have not shaken hands":
        "test_daemon_server.py::test_full_places_of_silent_ones_make_way",
    "many handshakes at once":
        "test_daemon_server.py::test_a_flood_of_handshakes_is_paced_and_a_good_one_is_next",
    "more connections of one institution than it may have":
        "test_daemon_server.py"
        "::test_an_institution_with_too_many_connections_is_told_the_bound",
    "no certificate, or one under no configured CA, expired, not yet valid, for another purpose,"
    " too weak":
        "test_daemon_refusals.py"
        "::test_a_caller_whose_certificate_does_not_do_is_refused_and_counted_by_reason",
    "a certificate that was revoked, or rests on one that was":
        "test_link_revocation.py::test_a_revoked_caller_is_refused_and_another_is_not",
    "a certificate of an authority whose revocation list is missing here":
        "test_link_revocation.py::test_what_rests_on_a_revoked_intermediate_is_refused",
    "a certificate whose revocation cannot be judged, since the list is too old":
        "test_link_revocation.py::test_a_list_past_its_next_update_serves_within_the_grace_only",
    "its certificate is revoked while it is connected":
        "test_daemon_revocation.py"
        "::test_a_load_ends_the_open_connection_of_who_was_revoked_and_no_other",
    "its CA is no longer accepted while it is connected":
        "test_daemon_revocation.py"
        "::test_an_authority_that_is_taken_out_takes_the_connections_under_it_along",
    "no ALPN `ksz-router/1`":
        "test_link_handshake.py::test_another_application_protocol_is_refused",
    "a certificate without URI in subjectAltName, or with several":
        "test_link_handshake.py::test_the_peer_is_its_one_uri_to_the_letter",
    "a certificate whose URI the rulebook does not know":
        "test_stranger.py::test_a_stranger_that_nobody_registered_is_told_so_at_each_request",
    "no Hello in 5 s":
        "test_daemon_housekeeping.py::test_who_does_not_say_hello_in_time_is_let_go",
    "a frame of length 0": _VECTORS,
    "a frame longer than agreed, or than 4,096 in the greeting":
        "test_wire_hostile.py::test_a_length_out_of_bounds_is_judged_before_memory_is_taken",
    "text of another protocol (`GET / HTTP/1.1`)": _VECTORS,
    "bytes that are not one MessagePack array with a tag": _VECTORS,
    "an unknown tag": _VECTORS,
    "too few elements, an element of another type, nil where none may be": _VECTORS,
    "an `id` below 0 or above 4,294,967,295": _VECTORS,
    "a speaker or outcome that is not in the table": _VECTORS,
    "text that is not UTF-8": _VECTORS,
    "bytes behind the message in its frame": _VECTORS,
    "elements nested without end": _VECTORS,
    "unknown elements behind the known ones":
        "test_wire_hostile.py::test_unknown_trailing_elements_are_ignored_in_every_message",
    "a Bye with an unknown code":
        "test_wire_vectors.py::test_a_conversation_goes_as_its_vector_says",
    "wrong order: a Request, Envelope or Ping before the greeting, a second Hello": _VECTORS,
    "an Envelope of no item or of more than 64, whose ids run past u32, or with a shared element of"
    " another type": _VECTORS,
    "an Envelope with an item that is MessagePack and no item":
        "test_daemon_envelopes.py"
        "::test_each_request_of_an_envelope_has_its_verdict_its_entries_and_its_answer",
    "wrong direction: an Answer to a front, a Request or Envelope to a source": _VECTORS,
    "the wrong kind of peer: a router's Hello at a front": _VECTORS,
    "no version in common": _VECTORS,
    "takes frames below 4,096 only": _VECTORS,
    "silent (no whole frame) for 30 s, and 10 s after the Ping":
        "test_daemon_housekeeping.py::test_who_answers_no_ping_is_let_go",
    "slow: a frame that is begun and not finished, or answers that are not read, for 10 s":
        "test_daemon_housekeeping.py::test_who_never_finishes_a_frame_is_let_go",
    "answers that are not read, more than 8 MiB of them":
        "test_laws_bounds.py::test_a_reader_that_stops_is_no_longer_read_and_then_let_go",
    "truncated: the bytes end without a Bye, inside a frame or between two":
        "test_link.py::test_a_close_of_tls_without_a_goodbye_is_a_truncation",
    "a correlation id that is in flight":
        "test_broken_peers.py::test_a_correlation_id_in_flight_ends_the_connection_and_nothing_else",
    "more requests than the window":
        "test_stranger.py::test_a_stranger_beyond_its_window_is_told_the_bound",
    "a Reply with an id that was not delivered, or a second Reply":
        "test_broken_peers.py::test_replies_that_nobody_waits_for_are_counted_and_dropped",
    "a Reply after the deadline":
        "test_laws.py::test_a_late_answer_is_recorded_as_discarded_and_not_given",
    "a Reply for another person":
        "test_laws_person.py::test_an_answer_that_is_not_for_the_asked_person_is_withheld",
    "a Reply that is not well formed":
        "test_laws_answered.py::test_each_thing_a_source_does_has_its_code",
    "a source that ends, or is ended by one of these, with deliveries in flight":
        "test_laws_answered.py::test_each_thing_a_source_does_has_its_code",
    "a source that fails, hangs, breaks off or misbehaves over and over":
        "test_hostile_sources.py"
        "::test_a_source_that_misbehaves_is_answered_for_in_time_and_left_in_peace",
    "a source that does not read its deliveries":
        "test_source_flow.py"
        "::test_deliveries_that_are_not_read_wait_in_bounds_and_harm_no_other",
    "a Pong that nobody asked for, a Drain and requests after it":
        "test_broken_peers.py::test_what_is_odd_and_harmless_is_let_pass",
    "a field of a Request that is out of bounds":
        "integration/test_storm.py::test_every_trick_in_every_field_of_a_request_is_answered_typed",
}  # fmt: skip
"""What a peer does, as the document says it, and the test that does it."""


def test_every_row_of_the_table_of_broken_peers_has_its_test() -> None:
    """A new row needs a test that breaks the rule, and a test that is renamed is missed."""
    (_, *rows), *_ = tables(section("Broken peers"))
    assert [row[0] for row in rows] == list(ROWS)
    for named in ROWS.values():
        file, _, function = named.partition("::")
        text = (Path(__file__).parent / file).read_text(encoding="utf-8")
        assert f"def {function}(" in text, named


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("first", "seconds"), [(b"", first_byte_seconds_max), (b"\x16\x03\x01", handshake_seconds_max)]
)
def test_who_says_nothing_or_half_a_greeting_of_tls_is_closed(
    ground: Ground, first: bytes, seconds: float
) -> None:
    """The clock jumps to where the worker waits no longer."""

    async def silent() -> None:
        async with parts(ground) as p:
            with socket.create_connection(p.listener.getsockname()) as plain:
                plain.sendall(first)
                begun = trio.current_time()
                await trio.lowlevel.wait_readable(plain)
                with contextlib.suppress(ConnectionResetError):  # what it sent was not read
                    assert plain.recv(1) == b""
            assert seconds <= trio.current_time() - begun < seconds + 1
            assert [code for code, _ in p.refused] == [Code.PEER_TOO_SLOW]
            assert p.metrics.handshakes == {"peer_too_slow": 1}

    trio.run(silent, clock=MockClock(autojump_threshold=0.05))


def raw(caller: Caller, *frames: bytes) -> None:
    """Send what no engine of ours would."""
    caller.link.connection._outgoing += frames
    caller.link.flush()


@in_trio
async def test_a_correlation_id_in_flight_ends_the_connection_and_nothing_else(
    ground: Ground,
) -> None:
    """In one read and in two; what came before has its entries, and another is answered."""
    async with parts(ground) as p:
        source, other = p.add_source(RVA), await p.connect()
        for at_once in (True, False):
            caller = await p.connect()
            known = len(source.deliveries)
            twice = [ask(id=7), ask(id=7)]
            caller.ask(*(twice if at_once else twice[:1]))
            await p.until(lambda known=known: len(source.deliveries) > known)
            if not at_once:
                caller.ask(twice[1])
            await p.until(lambda caller=caller: caller.ended)
            assert caller.ended is not None
            assert caller.ended.code is Code.CORRELATION_REUSED
            assert len(source.deliveries) == known + 1, "the second is not asked"
            source.reply(-1)
            exchange = source.last.exchange
            await p.until(lambda exchange=exchange: len(p.entries_of(exchange)) == 2)
        assert [ended.code for _, ended in p.ended] == [Code.CORRELATION_REUSED] * 2
        other.ask(ask(id=7))
        await p.until(lambda: len(source.deliveries) == 3)
        source.reply(-1)
        await p.until(lambda: other.answers)
        assert other.answer_to(7).code == Code.ANSWERED_WITH_DATA
        assert p.admission.inflight == 0


@in_trio
async def test_replies_that_nobody_waits_for_are_counted_and_dropped(ground: Ground) -> None:
    """An id that was never delivered, and one that is answered already; the link goes on."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        for number in (1, 2):
            caller.ask(ask(id=number))
            await p.until(lambda number=number: len(source.deliveries) == number)
            source.reply(-1, id=4_000_000_000)
            source.reply(-1)
            source.reply(-1)
            await p.until(lambda number=number: len(caller.answers) == number)
        await p.until(lambda: p.metrics.rejected[Code.ANSWER_DISCARDED] == 4)
        assert {answer.code for answer in caller.answers} == {Code.ANSWERED_WITH_DATA}
        assert len(source.links) == 1
        assert all(len(p.entries_of(d.exchange)) == 2 for _, d in source.deliveries)


@in_trio
async def test_what_is_odd_and_harmless_is_let_pass(ground: Ground) -> None:
    """A Pong without Ping, a Drain and requests after it, elements of a later release."""
    async with parts(ground) as p:
        caller = await p.connect()
        caller.link.send(Pong(99))
        caller.link.send(Drain(1))
        raw(caller, v.frame(v.body("Request", v.LEAST | {"id": 5}, form="trailing")))
        await p.until(lambda: caller.answers)
        assert caller.answer_to(5).code == Code.ANSWERED_WITH_DATA
        assert caller.ended is None
        assert not p.metrics.rejected
