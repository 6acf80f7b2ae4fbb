"""``ksz-router log`` and ``keys``: every question recorded before its answer; keys and test PKI."""

import csv
import io
import json
import re
import ssl
from pathlib import Path

import pytest

from ksz_router.cli import main
from ksz_router.identifiers import Insz
from ksz_router.privacylog.entry import Kind
from ksz_router.privacylog.reading import ReadingRefused, record_reading
from tests.privacylog_world import (
    NOW_NS,
    NSSO,
    OTHER,
    PERSON,
    RENUMBERED,
    SUPPLIER,
    USER,
    World,
    filled,
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def run(world: World, *words: str) -> int:
    return main(["log", *words, "--log", str(world.log), "--keys", str(world.keys)])


def test_a_query_is_recorded_before_it_is_answered(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reader finds their own reading among the rows, with its purpose."""
    filled(world)
    words = ("--purpose", "complaint 7", "--reader", "dpo", "--person", PERSON, "--json")
    assert run(world, "query", *words) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["kind"] for row in rows] == ["REQUEST"] * 4 + ["READING"]
    assert (rows[-1]["reader"], rows[-1]["purpose"]) == ("dpo", "complaint 7")
    assert (rows[0]["verdict"], rows[1]["verdict"]) == ("forward", "NO_GRANT")
    assert rows[0]["outcomes"][0]["name"] == "ANSWERED_WITH_DATA"


@pytest.mark.parametrize("hindrance", ["no keys", "no log", "no purpose", "a person in it"])
def test_what_cannot_be_recorded_is_not_shown(
    world: World, capsys: pytest.CaptureFixture[str], hindrance: str
) -> None:
    """No entry, no answer: neither rows nor their number."""
    filled(world)
    purpose = {"no purpose": " ", "a person in it": "on 85.07.30-033.28"}.get(hindrance, "x")
    if hindrance == "no log":
        world.log.rename(world.log.with_name("moved"))
    if hindrance == "no keys":
        for file in world.keys.iterdir():
            file.unlink()
    assert run(world, "query", "--purpose", purpose, "--person", PERSON) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert PERSON not in printed.err
    assert "85.07" not in printed.err


def test_a_reading_names_reader_purpose_and_every_number(world: World) -> None:
    """One entry for each number of the person, in a slot of the process itself."""
    world.open().close()
    record_reading(
        world.log,
        world.keys,
        node="router-a",
        reader="dpo",
        purpose="audit",
        verb="directory show",
        now_ns=NOW_NS,
        persons=[Insz(PERSON), Insz(OTHER)],
        institution=NSSO,
    )
    (slot,) = [entry.name for entry in world.log.iterdir() if entry.name.startswith("v-")]
    entries = world.entries(slot)
    assert [entry.person for entry in entries] == [
        world.tokens.person(PERSON), world.tokens.person(OTHER),
    ]  # fmt: skip
    assert {(e.kind, e.service, e.reader, e.purpose, e.enterprise) for e in entries} == {
        (Kind.READING, "directory show", "dpo", "audit", NSSO)
    }
    with pytest.raises(ReadingRefused):
        record_reading(
            world.log, world.keys, node="n", reader="", purpose="x", verb="v", now_ns=NOW_NS
        )


def test_the_table_for_people_says_who_when_and_with_what_verdict(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Persons come on standard input; none is in the output."""
    filled(world)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PERSON}\n{RENUMBERED}\n"))
    assert run(world, "query", "--purpose", "complaint 7", "--person", "-", "--limit", "2") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert "2026-11-18 12:06:40.000" in lines[1]
    assert all(word in lines[1] for word in (NSSO, "pension.consult/2", "forward", "g-1", "5.0"))
    assert "NO_GRANT" in lines[2]
    assert "there are more" in err
    assert PERSON not in out + err


def test_a_listing_goes_on_where_it_ended_and_fits_a_spreadsheet(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """The word that is printed leads on; its reading comes last, and is in no earlier page."""
    filled(world)
    words = ("query", "--purpose", "=1+1", "--limit", "5", "--csv")
    assert run(world, *words) == 0
    out, err = capsys.readouterr()
    first = list(csv.reader(io.StringIO(out)))
    assert [line[6] for line in first] == ["verdict", "forward", "NO_GRANT", *["forward"] * 3]
    found = re.search(r"--cursor (\S+),", err)
    assert found is not None
    assert run(world, *words, "--cursor", found[1]) == 0
    out, err = capsys.readouterr()
    second = list(csv.reader(io.StringIO(out)))
    assert [(line[3], line[6]) for line in second[1:]] == [("'=1+1", "read")] * 2
    assert err == ""


def test_an_exchange_is_found_by_the_id_that_a_query_prints(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """The id of the table, and of JSON."""
    filled(world)
    assert run(world, "query", "--purpose", "x", "--service", "family.consult") == 0
    (line,) = capsys.readouterr().out.splitlines()[1:]
    found = re.search(r"[0-9a-f-]{36}", line)
    assert found is not None
    assert run(world, "query", "--purpose", "x", "--exchange", found[0]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [line]


@pytest.mark.parametrize(
    "words",
    [
        ("--ticket", "T-1"),
        ("--exchange", "5"),
        ("--cursor", "5"),
        ("--person", "85073003329"),
        ("--person", "no-such-file"),
        ("--institution", "1"),
        ("--verdict", "NO_SUCH"),
        ("--from", "2026-02-30"),
        ("--limit", "0"),
    ],
)
def test_a_wrong_question_is_a_wrong_usage(
    world: World, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """The message says what is expected, and never repeats a number."""
    filled(world)
    assert run(world, "query", "--purpose", "x", *words) == 2
    assert words[0] in (message := capsys.readouterr().err)
    assert "85073003329" not in message


def test_verification_names_places_and_exits_by_what_it_found(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """For people a line a fault; for programs an object a line."""
    filled(world)
    assert run(world, "verify") == 0
    assert capsys.readouterr().out == "2 files, 4 frames, 9 records: no faults\n"
    file = world.files()[0]
    data = bytearray(file.read_bytes())
    data[4096 + 100] ^= 1
    file.write_bytes(data)
    assert run(world, "verify") == 1
    assert f"{file}: byte 4136, frame 1:" in capsys.readouterr().out
    assert run(world, "verify", "--json") == 1
    fault, total = map(json.loads, capsys.readouterr().out.splitlines())
    assert (fault["offset"], fault["frame"], total["faults"]) == (4136, 1, 1)


def test_no_number_of_a_person_or_user_is_in_any_byte_on_disk(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor in what the frames hold when they are decrypted."""
    filled(world)
    assert run(world, "query", "--purpose", "x", "--person", PERSON, "--user", USER) == 0
    on_disk = [file.read_bytes() for file in world.log.rglob("*") if file.is_file()]
    slots = [entry.name for entry in world.log.iterdir()]
    records = [r for s in slots for f in world.files(s) for g in world.frames(f) for r in g.records]
    assert len(records) > 8
    for number in (PERSON, RENUMBERED, OTHER, USER, SUPPLIER):
        value = int(number)
        forms = [number.encode(), value.to_bytes(5, "big"), value.to_bytes(5, "little")]
        assert not [1 for data in (*on_disk, *records) for form in forms if form in data]
    assert PERSON not in capsys.readouterr().out


def test_keys_are_made_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Quarter keys and a signing pair; what exists is never replaced."""
    folder = str(tmp_path / "k")
    assert main(["keys", "quarter", "--folder", folder]) == 0
    before = {file.name: file.read_bytes() for file in (tmp_path / "k").iterdir()}
    assert len(before) == 2
    assert main(["keys", "quarter", "--folder", folder]) == 0
    assert {file.name: file.read_bytes() for file in (tmp_path / "k").iterdir()} == before
    assert main(["keys", "quarter", "--folder", folder, "--quarter", min(before)[:6]]) == 1
    assert main(["keys", "quarter", "--folder", folder, "--quarter", "2026"]) == 2
    signer = str(tmp_path / "signer")
    assert main(["keys", "signer", "--out", signer]) == 0
    assert Path(signer).stat().st_mode & 0o777 == 0o600
    assert main(["keys", "signer", "--out", signer]) == 1
    assert "PRIVATE" not in capsys.readouterr().out


def context(folder: Path, name: str, *, server: bool) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(folder / "authorities.pem")
    made.load_verify_locations(folder / "revocations.pem")
    made.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
    return made


def test_router_and_institution_of_a_test_pki_shake_hands(tmp_path: Path) -> None:
    """Mutual TLS in memory, revocation list checked, and the institution's URI arrives."""
    assert main(["keys", "testpki", str(tmp_path), "--institution", "nsso=urn:x:nsso"]) == 0
    assert main(["keys", "testpki", str(tmp_path)]) == 1
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context(tmp_path, "nsso", server=False).wrap_bio(
        to_client, to_server, server_hostname="localhost"
    )
    server = context(tmp_path, "router", server=True).wrap_bio(
        to_server, to_client, server_side=True
    )
    done = set()
    for side in (client, server) * 4:
        try:
            side.do_handshake()
            done.add(side)
        except ssl.SSLWantReadError:
            pass
    assert done == {client, server}
    peer = server.getpeercert()
    assert peer is not None
    assert ("URI", "urn:x:nsso") in peer["subjectAltName"]
    assert "TEST ONLY" in str(peer["subject"])
