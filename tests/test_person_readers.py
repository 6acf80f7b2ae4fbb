"""Every local verb that reads a person records it first, and shows nothing where it cannot."""

import argparse
import ast
import io
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from ksz_router import cli
from ksz_router.privacylog import keys
from ksz_router.privacylog.entry import Entry, Kind, parse
from ksz_router.privacylog.frame import Frame
from ksz_router.privacylog.hotlog import HotLog
from ksz_router.privacylog.keys import KeyRing, Tokens
from ksz_router.privacylog.verify import verify
from tests import worlds
from tests.daemon_ground import NEIGHBOUR, NOBODY, insz, load_directory

OLDEST, OLD = map(insz, (21, 22))
"""The person's numbers before ``PERSON``: the first became the second, the second ``PERSON``."""
NUMBERS = (OLDEST, OLD, worlds.PERSON)

CLI = Path(cli.__file__).parent

READS: dict[str, tuple[str, ...]] = {
    "directory show": ("directory", "show", "-"),
    "explain": ("explain", "--as", worlds.uri(worlds.CENTRE), "--person", "-",
                "--service", "UnemploymentData", "--service-version", "3", "--sector", "17",
                "--type", "1", "--capacity", "2", "--user", worlds.USER_A),
    "directory history": ("directory", "history", "--person", "-"),
    "log query": ("log", "query", "--person", "-"),
}  # fmt: skip
"""The verbs that read a person, each with a command line that does; the number on stdin."""

BY_EXCHANGE: dict[str, tuple[str, ...]] = {
    "log prove": ("log", "prove", "--exchange", "019a91e0-7a3b-7c11-9d52-0b7f6f3c2a10"),
    "log replay": ("log", "replay", "--exchange", "019a91e0-7a3b-7c11-9d52-0b7f6f3c2a10"),
}
"""The verbs that show what is about a person whom they only meet in what they find."""

EVERYBODY = {"report directory": ("--work-lists", "lists")}
"""The verbs that read everybody, and the words with which they name some: then a purpose is asked.
Whom is not known before; one entry is made, without person (tests/test_report_cli.py)."""

RECORDS: dict[str, str] = {
    "directory apply": "a READING names whose file it is, and each of its lines has entries",
}
"""The verbs that show no person, and record who ran them and why all the same."""

OTHERS = {
    "run": "serves: each exchange has its entries",
    "check-config": "opens the tables, and looks nobody up",
    "status": "counts",
    "rulebook check": "text under review: users stand in it by a key",
    "rulebook build": "as check",
    "rulebook activate": "signs",
    "rulebook show": "institutions, services and grants; no right of a user",
    "rulebook user-key": "computes a name from the number it is given, and looks nobody up",
    "directory load": "writes; a refusal names rows of the file and no person",
    "directory backup": "copies the file; shows a version and counts",
    "directory restore": "copies and checks; a problem names a place, as that of check",
    "directory check": "a problem names the place of a number in the file, not the number",
    "directory synthesise": "nobody: its persons do not exist",
    "send": "asks a router as an institution: the router records it",
    "log stats": "counts, from rollups that hold no person",
    "log verify wal": "places and counts",
    "log verify fast": "places and counts",
    "log verify full": "places and counts",
    "log verify derived": "places and counts",
    "log verify checkpoint": "a size and a root",
    "log verify consistency": "sizes and roots",
    "log verify record": "of a file that who asks has already: its kind, its exchange, its time",
    "keys quarter": "makes keys",
    "keys commit": "copies a key with which nobody is found",
    "keys checkpoint": "makes keys",
    "keys signer": "makes keys",
    "keys testpki": "makes certificates",
}
"""The verbs that read no person, each with the reason."""

MAY_READ = {
    "ksz_router.directory.snapshot": {"reading", "check_config"},
    "ksz_router.directory.Directory": set[str](),
    "ksz_router.directory.scan": {"report_directory"},
    "ksz_router.privacylog.query": {"log_query", "directory_history"},
    "ksz_router.privacylog.live": set[str](),
    "ksz_router.privacylog.archive.assemble": {"log_query", "directory_history"},
    "ksz_router.privacylog.archive.search": set[str](),
    "ksz_router.privacylog.hotlog": set[str](),
    "ksz_router.privacylog.recovery": set[str](),
    "ksz_router.privacylog.archive.find": {"log_prove", "log_replay"},
    "ksz_router.privacylog.archive.requests": {"log_replay"},
    "ksz_router.replay.replay": {"log_replay"},
}
"""What reads persons, and the modules of the command line that may import it."""


class Desk(NamedTuple):
    """Tables and a privacy log that is empty."""

    folder: Path
    config: Path
    log: Path
    keys: Path

    def entries(self) -> list[Entry]:
        found: list[Entry] = []

        def visit(frame: Frame) -> None:
            found.extend(map(parse, frame.records))

        log = HotLog(self.log, KeyRing(self.keys))
        for slot in log.slots:
            log.read(slot, 0, 2**63, visit)
        assert not log.damaged
        return found


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    worlds.make_world(folder)
    persons = {worlds.PERSON: worlds.LINES, NEIGHBOUR: worlds.LINES}
    load_directory(folder / "directory", persons, {OLDEST: OLD, OLD: worlds.PERSON})
    return folder


@pytest.fixture
def desk(tables: Path, tmp_path: Path) -> Desk:
    config = tmp_path / "router.toml"
    config.write_text(
        f'[tables]\nrulebook = "{tables}/rulebook"\ndirectory = "{tables}/directory"\n'
        '[privacy_log]\npath = "log"\nkeys = "keys"\n',
        encoding="utf-8",
    )
    (tmp_path / "log").mkdir()
    keys.make(tmp_path / "keys", keys.quarter_of(time.time_ns()))
    return Desk(tmp_path, config, tmp_path / "log", tmp_path / "keys")


def leaves(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command below a parser that has no further one, by its words."""
    nested = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not nested:
        yield "", parser
    for action in nested:
        for name, below in action.choices.items():
            for words, leaf in leaves(below):
                yield f"{name} {words}".strip(), leaf


def commands() -> dict[str, argparse.ArgumentParser]:
    found: dict[str, argparse.ArgumentParser] = {}
    for verb in cli.VERBS:
        parser = argparse.ArgumentParser()
        cli._module(verb).add(parser)
        found |= {f"{verb} {words}".strip(): leaf for words, leaf in leaves(parser)}
    return found


def run(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, verb: str, *, number: str = OLD,
    purpose: str = "complaint 7", reader: Sequence[str] = ("--reader", "dpo"),
) -> int:  # fmt: skip
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{number}\n"))
    words = [
        *(READS | BY_EXCHANGE)[verb],
        "--config",
        str(desk.config),
        "--purpose",
        purpose,
        *reader,
    ]
    return cli.main(words)


def test_every_verb_is_known_to_read_a_person_or_not_to() -> None:
    """A verb that is new is put in one of the two tables above, and tested if it reads."""
    assert sorted(commands()) == sorted([*READS, *BY_EXCHANGE, *EVERYBODY, *RECORDS, *OTHERS])


def test_a_verb_that_can_be_given_a_person_is_one_that_reads_or_says_why_not() -> None:
    """Whatever takes a number of a person takes who reads and why, too."""
    for name, leaf in commands().items():
        options = {option for action in leaf._actions for option in action.option_strings}
        words = options | {action.dest for action in leaf._actions}
        takes_person = bool(words & {"--person", "person", "insz", "--insz"})
        is_recorded = any(name in table for table in (READS, BY_EXCHANGE, EVERYBODY, RECORDS))
        assert ({"--purpose", "--reader"} <= options) == is_recorded
        assert not takes_person or name in READS or name == "send", name


def test_nothing_else_of_the_command_line_can_read_a_person() -> None:
    """What reads the directory or the log is imported where the entry comes first."""
    for path in CLI.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    named = {str(node.module), f"{node.module}.{alias.name}"}
                    for target in named & MAY_READ.keys():
                        assert path.stem in MAY_READ[target], f"{path.name} imports {target}"


@pytest.mark.parametrize("verb", READS)
def test_a_reading_is_in_the_log_under_every_number_of_the_person(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    """Verb, reader and purpose, in a file of its own; and the log is whole."""
    assert run(desk, monkeypatch, verb) in (cli.OK, cli.NOT_IN_ORDER)
    assert capsys.readouterr().out
    entries = desk.entries()
    tokens = Tokens(keys.load(desk.keys, keys.quarter_of(time.time_ns())))
    assert {entry.person for entry in entries} == set(map(tokens.person, NUMBERS))
    assert {(e.kind, e.service, e.reader, e.purpose) for e in entries} == {
        (Kind.READING, verb, "dpo", "complaint 7")
    }
    assert [slot.name for slot in desk.log.iterdir()] == [f"v-{os.getuid()}-0"]
    assert verify(desk.log, desk.keys).faults == []


@pytest.mark.parametrize("verb", READS)
def test_a_person_who_is_nobody_is_recorded_all_the_same(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """That somebody is not there is an answer too."""
    run(desk, monkeypatch, verb, number=NOBODY)
    tokens = Tokens(keys.load(desk.keys, keys.quarter_of(time.time_ns())))
    assert [entry.person for entry in desk.entries()] == [tokens.person(NOBODY)]


@pytest.mark.parametrize("verb", READS)
def test_the_entry_is_durable_before_the_person_is_looked_up(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    """Where the directory cannot be read nothing is shown, and the entry is there."""
    text = desk.config.read_text(encoding="utf-8")
    desk.config.write_text(re.sub(r'directory = "[^"]*"', 'directory = "none"', text), "utf-8")
    assert run(desk, monkeypatch, verb) == cli.NOT_IN_ORDER
    assert capsys.readouterr().out == ""
    assert len(desk.entries()) == 1


@pytest.mark.parametrize(("verb", "naming"), EVERYBODY.items())
def test_who_reads_everybody_says_why_where_it_names_some(
    desk: Desk, capsys: pytest.CaptureFixture[str], verb: str, naming: Sequence[str]
) -> None:
    """Without a purpose nothing is read; with one the entry is there before the first look."""
    out = desk.folder / "out"
    words = [*verb.split(), "--quarter", "2020Q1", "--out", str(out), "--config", str(desk.config)]
    named = [naming[0], str(desk.folder / naming[1])]
    assert cli.main([*words, *named]) == cli.USAGE
    assert desk.entries() == []
    gone = ("--directory", str(desk.folder / "none"), "--purpose", "complaint 7", "--reader", "dpo")
    assert cli.main([*words, *named, *gone]) == cli.NOT_IN_ORDER
    (entry,) = desk.entries()
    assert (entry.kind, entry.service, entry.reader, entry.purpose, entry.person) == (
        Kind.READING, verb, "dpo", "complaint 7", None,
    )  # fmt: skip
    assert capsys.readouterr().out == ""
    assert not out.exists()


@pytest.mark.parametrize("verb", BY_EXCHANGE)
def test_that_an_exchange_was_looked_for_is_recorded_where_there_is_none(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    """Whom it is about is not known then; who asked and why is."""
    run(desk, monkeypatch, verb)
    assert capsys.readouterr().out == ""
    (entry,) = desk.entries()
    assert (entry.service, entry.person, entry.purpose) == (verb, None, "complaint 7")


HINDRANCES = ("no log", "log not writable", "no keys", "no purpose", "person in purpose",
              "person in reader")  # fmt: skip


@pytest.mark.parametrize("hindrance", HINDRANCES)
@pytest.mark.parametrize("verb", [*READS, *BY_EXCHANGE])
def test_what_cannot_be_recorded_is_not_shown(
    desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verb: str,
    hindrance: str,
) -> None:
    """Not a word, not even whether the number is known, and no number in the complaint."""
    dotted = f"{OLD[:6]} {OLD[6:9]}-{OLD[9:]}"
    if hindrance == "no log":
        desk.log.rmdir()
    elif hindrance == "log not writable":
        (desk.log / f"v-{os.getuid()}-0").write_text("in the way of the slot", encoding="utf-8")
    elif hindrance == "no keys":
        for file in desk.keys.iterdir():
            file.unlink()
    code = run(
        desk,
        monkeypatch,
        verb,
        purpose={"no purpose": " ", "person in purpose": dotted}.get(hindrance, "complaint 7"),
        reader=("--reader", dotted if hindrance == "person in reader" else "dpo"),
    )
    shown = capsys.readouterr()
    assert (code, shown.out) == (cli.NOT_IN_ORDER, "")
    assert shown.err
    assert not any(number in shown.err for number in (*NUMBERS, dotted))


@pytest.mark.parametrize("verb", [*READS, *BY_EXCHANGE])
def test_nobody_reads_without_saying_why(
    desk: Desk, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    """The purpose is no option."""
    with pytest.raises(SystemExit):
        cli.main([*(READS | BY_EXCHANGE)[verb], "--config", str(desk.config)])
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "--purpose" in shown.err
    assert list(desk.log.iterdir()) == []
