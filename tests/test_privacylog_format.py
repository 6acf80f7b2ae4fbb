"""The bytes of entries, tokens, key files and write-ahead files, against vectors and in general."""

import json
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksz_router.limits import record_bytes_max
from ksz_router.model import Line
from ksz_router.privacylog.entry import (
    Entry,
    EntryMalformed,
    Kind,
    begin,
    canonical,
    canonical_parts,
    parse,
    parse_head,
    run,
)
from ksz_router.privacylog.frame import FrameCipher, encode_frame, frame_bytes, frames
from ksz_router.privacylog.header import (
    PAGE,
    FileHeader,
    FrameDamaged,
    Link,
    chain_value,
    encode_file_header,
    parse_file_header,
)
from ksz_router.privacylog.keys import (
    LABELS,
    QuarterKeys,
    Tokens,
    load,
)
from tests.privacylog_world import NSSO, PERSON, World

VECTORS = Path(__file__).parent / "vectors" / "privacylog"

numbers = st.integers(0, 2**63 - 1)
texts = st.text(max_size=20)
tokens = st.none() | st.binary(min_size=16, max_size=16)
lines = st.builds(Line, *[st.integers(0, 10**8)] * 7)
entries = st.builds(
    Entry,
    kind=st.sampled_from(Kind),
    at_us=numbers,
    exchange=tokens,
    code=st.integers(0, 20_000),
    service=texts,
    requester=st.none() | texts,
    capacity=st.none() | st.integers(0, 999),
    user=tokens,
    person=tokens,
    destinations=st.lists(texts, max_size=3).map(tuple),
    line=st.none() | lines,
    violations=st.lists(texts, max_size=2).map(tuple),
    counts=st.lists(st.tuples(numbers, numbers), max_size=3).map(tuple),
    purpose=texts,
)


def vectors(name: str) -> dict[str, object]:
    table: dict[str, object] = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))
    assert table["origin"], "a vector says where it comes from"
    return table


def known_keys(table: dict[str, object]) -> QuarterKeys:
    keys = msgspec.convert(table["keys"], dict[str, str])
    return QuarterKeys(
        id=msgspec.convert(table["key_id"], str),
        **{label: bytes.fromhex(keys[label]) for label in LABELS},
    )


@given(entries)
def test_an_entry_comes_back_from_its_canonical_form(entry: Entry) -> None:
    """Nothing is lost or changed, and the head alone reads the same."""
    data = canonical(entry)
    assert parse(data) == entry
    head = parse_head(data)
    assert (head.kind, head.at_us, head.exchange, head.code) == (
        entry.kind, entry.at_us, entry.exchange, entry.code,
    )  # fmt: skip


def in_parts(entry: Entry, runs: set[int]) -> tuple[object, ...]:
    """The fields of an entry; those that ``runs`` names, and four in a row, as runs."""
    fields = msgspec.structs.astuple(entry)
    parts = [run(field) if at in runs else field for at, field in enumerate(fields)]
    return (begin(entry.kind), *parts[2:20], run(*fields[20:24]), *parts[24:])


@given(entries, st.sets(st.integers(2, 43)))
def test_an_entry_in_parts_has_the_one_form(entry: Entry, runs: set[int]) -> None:
    """What the router puts together from runs is what the definition says, wherever they are."""
    assert canonical_parts(in_parts(entry, runs)) == canonical(entry)


def test_an_entry_in_parts_is_cut_where_it_is_too_long() -> None:
    """As any other: endless text never keeps an entry from being recorded."""
    entry = Entry(kind=Kind.REQUEST, at_us=7, service="é" * 9000, means="x" * 9000)
    data = canonical_parts(in_parts(entry, set()))
    assert data == canonical(entry)
    assert len(data) <= record_bytes_max


@given(entries, st.data())
def test_any_other_bytes_are_refused_or_are_another_entry(
    entry: Entry, data: st.DataObject
) -> None:
    """There is one form: changed bytes never give the same entry again."""
    good = canonical(entry)
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    with suppress(EntryMalformed):
        assert parse(bad) != entry


@pytest.mark.parametrize(
    "change",
    [
        lambda v: [*v, None],  # a field more
        lambda v: v[:-1],  # a field less
        lambda v: [2, *v[1:]],  # another version
        lambda v: [1, 1, float(v[2]), *v[3:]],  # a float
        lambda v: [1, 9, *v[2:]],  # an unknown kind
    ],
)
def test_what_only_looks_like_an_entry_is_refused(change: object) -> None:
    """A decoder that is generous would let two forms of one entry stand."""
    assert callable(change)
    values = msgspec.msgpack.decode(canonical(Entry(kind=Kind.REQUEST, at_us=7)))
    with pytest.raises(EntryMalformed):
        parse(msgspec.msgpack.encode(change(values)))


def test_an_integer_in_a_longer_form_is_refused() -> None:
    """MessagePack has five forms of 1; only the shortest is canonical."""
    good = canonical(Entry(kind=Kind.REQUEST, at_us=7))
    assert good[3:5] == b"\x01\x01"
    with pytest.raises(EntryMalformed):
        parse(good[:3] + b"\xcc\x01" + good[4:])


def test_an_entry_with_endless_text_of_a_peer_is_cut_and_kept() -> None:
    """A refused request carries unchecked text; its entry fits all the same."""
    entry = Entry(
        kind=Kind.REQUEST, at_us=7, code=2001, service="é" * 9000, legal_framework="x" * 9000
    )
    data = canonical(entry)
    assert len(data) <= record_bytes_max
    assert parse(data).service == "é" * 32


def test_nothing_prints_a_token_or_a_key(tmp_path: Path) -> None:
    """Tokens and keys stay out of tracebacks and logs."""
    world = World(tmp_path)
    token = world.tokens.person(PERSON)
    shown = repr(Entry(kind=Kind.REQUEST, at_us=7, person=token, user=token, ticket=token))
    assert repr(token)[2:-1] not in shown
    keys = load(world.keys, "2026Q4")
    assert repr(keys) == f"QuarterKeys({keys.id})"


def test_entries_of_the_vectors_have_the_bytes_they_say() -> None:
    """What a stranger computes from the specification is what we write."""
    for case in msgspec.convert(vectors("entries")["cases"], list[dict[str, object]]):
        data = bytes.fromhex(msgspec.convert(case["canonical"], str))
        entry = parse(data)
        assert canonical(entry) == data
        assert json.loads(json.dumps(msgspec.to_builtins(entry))) == case["entry"]


def test_tokens_of_the_vectors_are_computed() -> None:
    """Known keys and numbers give known tokens, there and back."""
    table = vectors("tokens")
    keys = known_keys(table)
    for case in msgspec.convert(table["cases"], list[dict[str, str]]):
        made = Tokens(keys)
        assert made.person(case["insz"]).hex() == case["person"]
        assert made.user(case["insz"]).hex() == case["user"]
        assert made.person_number(bytes.fromhex(case["person"])) == case["insz"]
        assert made.ticket(NSSO, case["ticket"]).hex() == case["ticket_hash"]
    commitments = msgspec.convert(table["commitments"], dict[str, str])
    assert {label: keys.commitment(label).hex() for label in LABELS} == commitments


def test_the_file_of_the_vectors_is_read_and_made_again() -> None:
    """A whole small file: header, a frame of two records, the last frame."""
    table = vectors("file")
    keys, pages = known_keys(table), msgspec.convert(table["pages"], list[str])
    data = b"".join(bytes.fromhex(page).ljust(PAGE, b"\0") for page in pages)
    header = parse_file_header(data[:PAGE])
    cipher = FrameCipher(keys.frames, header.salt)
    assert header.commitment == keys.commitment("frames")
    found = list(frames(lambda at, size: data[at : at + size], header, cipher))
    assert [frame.flags for frame in found] == [0, 1]
    assert [record.hex() for record in found[0].records] == table["records"]

    made, crc = encode_file_header(header), chain_value(data[:PAGE])
    for frame in found:
        more, crc = encode_frame(
            cipher,
            frame.records,
            number=frame.number,
            first_record=frame.first_record,
            previous_crc=crc,
            flags=frame.flags,
        )
        made += more
    assert made == data[: len(made)]
    assert not any(data[len(made) :])


names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=32)
wide = st.integers(0, 2**64 - 1)


@given(
    st.builds(
        FileHeader,
        salt=st.binary(min_size=32, max_size=32),
        node=names,
        slot=names,
        number=wide,
        key_id=names,
        commitment=st.binary(min_size=32, max_size=32),
        created_us=wide,
        file_bytes=wide,
        first_record=wide,
        previous=st.none()
        | st.builds(Link, st.integers(1, 2**64 - 1), wide, st.integers(0, 2**32 - 1)),
    )
)
def test_a_file_header_comes_back_from_its_page(header: FileHeader) -> None:
    """Every field of the first page is kept."""
    assert parse_file_header(encode_file_header(header)) == header


@given(st.lists(st.binary(min_size=1, max_size=400), max_size=30), st.integers(0, 2**32 - 1))
def test_a_frame_is_as_long_as_foreseen_and_padded_to_pages(records: list[bytes], crc: int) -> None:
    """The writer decides on rotation before it encodes."""
    cipher = FrameCipher(bytes(32), bytes(32))
    data, _ = encode_frame(cipher, records, number=1, first_record=0, previous_crc=crc)
    assert len(data) == frame_bytes(records)
    assert len(data) % PAGE == 0


def test_a_frame_of_another_key_is_refused() -> None:
    """Authenticated encryption: the checksums alone could be made by anyone."""
    header = FileHeader(
        salt=bytes(32), node="n", slot="s", number=1, key_id="2026Q4-00000000",
        commitment=bytes(32), created_us=0, file_bytes=2 * PAGE, first_record=0, previous=None,
    )  # fmt: skip
    page = encode_file_header(header)
    crc = chain_value(page)
    forger = FrameCipher(b"\1" * 32, bytes(32))
    frame, _ = encode_frame(forger, [b"x"], number=1, first_record=0, previous_crc=crc)
    data = page + frame
    with pytest.raises(FrameDamaged, match="not made with this key"):
        list(frames(lambda at, n: data[at : at + n], header, FrameCipher(bytes(32), bytes(32))))
