"""Derived files against sealed entries: right ones pass, and every kind of fault is found."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ksz_router.cli import main
from ksz_router.privacylog.archive import verify_derived as verifier
from ksz_router.privacylog.archive.chain import append, newest_recorded
from ksz_router.privacylog.archive.findings import Findings
from ksz_router.privacylog.archive.merge import merge
from ksz_router.privacylog.archive.places import file_of
from ksz_router.privacylog.archive.runs import plan
from ksz_router.privacylog.archive.schema import SCHEMAS
from ksz_router.privacylog.archive.segment import encode
from ksz_router.privacylog.archive.verify_derived import Leaves, verify_derived
from ksz_router.privacylog.entry import Entry, Kind, canonical
from tests.archive_ground import Ground
from tests.privacylog_world import CPAS, NOW_NS, NSSO, OTHER, PERSON, SUPPLIER, filled

Change: TypeAlias = Callable[[pa.Table], pa.Table]


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """A log with all kinds of entries, sealed in steps of a few leaves."""
    ground = Ground(tmp_path_factory.mktemp("sealed") / "ground")
    world = ground.world
    filled(world)
    tokens = world.tokens
    writer = world.open(slot="w2")
    at_us = NOW_NS // 1000
    shared: dict[str, Any] = {"service": "letter.send", "requester": NSSO, "at_us": at_us + 9}
    for number in range(10, 30):
        supplier = tokens.user(SUPPLIER)
        batch = [world.outcome(number, user=supplier), world.outcome(number, 9004)]
        if number % 5 == 0:  # a distribution, and two further persons
            common = shared | {"exchange": number.to_bytes(16, "big")}
            for kind, fields in (
                (Kind.RECIPIENT, {"destinations": (CPAS,), "user": supplier, "code": 10001}),
                (Kind.FURTHER, {"person": tokens.person(PERSON)}),
                (Kind.FURTHER, {"person": tokens.person(OTHER)}),
            ):
                batch.insert(0, canonical(Entry(kind=kind, **common, **fields)))
        sent: dict[str, Any] = {"destinations": (CPAS, NSSO)} if number % 5 == 0 else {}
        writer.commit([world.request(number, ticket=b"t" * 16, **sent)], NOW_NS)
        writer.commit(batch, NOW_NS)
    reading = Entry(
        kind=Kind.READING, at_us=at_us + 10, service="log query", reader="jan",
        purpose="file 1", person=tokens.person(PERSON),
    )  # fmt: skip
    writer.commit([canonical(reading), world.request(40)], NOW_NS)
    writer.close()
    ground.seal(leaves_max=20)
    return ground


@pytest.fixture
def ground(sealed: Ground, tmp_path: Path) -> Ground:
    return sealed.copied(tmp_path / "copy")


def told(findings: Findings) -> list[str]:
    return [fault.what for fault in findings.faults]


def altered(ground: Ground, kind: str, change: Change, at: int = 0) -> Path:
    """Change the rows of a derived file, as a faulty sealer would write them."""
    file = file_of(ground.archive, ground.files(kind)[at].path)
    table = pq.read_table(file).cast(SCHEMAS[kind])
    file.write_bytes(encode(kind, change(table).cast(SCHEMAS[kind])))
    return file


def with_first(name: str, value: Any) -> Change:
    """Another value in the first row."""

    def change(table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        assert values[0] != value
        at = table.schema.get_field_index(name)
        return table.set_column(
            at, name, pa.array([value, *values[1:]], table.schema.field(name).type)
        )

    return change


def test_what_the_sealer_derives_is_right(ground: Ground) -> None:
    """Of a log with all kinds of entries, cut into segments within exchanges."""
    assert len(ground.files("t")) > 3
    assert len(ground.files("p")) > 3
    findings = verify_derived(ground.archive)
    assert told(findings) == []
    assert findings.leaves == ground.sealed_leaves() == len(ground.truth())


def test_what_a_merge_makes_is_right(ground: Ground) -> None:
    """All runs of the quarter become one, in parts; then one row less of a part is found."""
    files = [file for kind in "pukr" for file in ground.files(kind)]
    before = newest_recorded(ground.archive)
    assert before is not None
    due = plan(files, lambda _: True)
    assert [one.kind for one in due] == ["k", "p", "r", "u"]
    added = tuple(file for one in due for file in merge(ground.archive, one, part_rows_max=40))
    removed = tuple(path for one in due for path in one.removed)
    manifest = msgspec.structs.replace(
        before.manifest, number=before.manifest.number + 1, previous=before.sha256, added=added,
        removed=removed,
    )  # fmt: skip
    append(ground.archive, manifest)
    assert {file.level for file in ground.files("p")} == {1}
    assert told(verify_derived(ground.archive)) == []
    file = altered(ground, "p", lambda table: table.slice(1))
    findings = verify_derived(ground.archive)
    assert {fault.file for fault in findings.faults} >= {file}
    assert "no p file has a row that it must have" in told(findings)


@pytest.mark.parametrize("kind", ["p", "u", "k"])
def test_a_row_that_is_missing_is_found(ground: Ground, kind: str) -> None:
    altered(ground, kind, lambda table: table.slice(0, len(table) - 1))
    said = told(verify_derived(ground.archive))
    assert f"no {kind} file has a row that it must have" in said


@pytest.mark.parametrize("kind", ["p", "u", "k"])
def test_a_row_that_is_there_twice_is_found(ground: Ground, kind: str) -> None:
    file = altered(ground, kind, lambda table: pa.concat_tables([table.slice(0, 1), table]))
    findings = verify_derived(ground.archive)
    assert "a row that no entry gives, or one twice" in told(findings)
    assert {(fault.file, fault.row_group) for fault in findings.faults} <= {(file, 0), (file, None)}


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("p", "person", b"\0" * 16), ("p", "at_us", 1), ("p", "code", 7), ("p", "outcome", 7),
        ("p", "destinations", ["0206731645"]), ("p", "further_persons", 7), ("p", "user", None),
        ("p", "q", "2026Q3"), ("p", "b", 1), ("p", "kind", 5), ("p", "reader", "piet"),
        ("u", "institution", "0"), ("u", "member", b"\0" * 16), ("u", "seq", 8),
        ("u", "outcome_at_us", 5), ("u", "recipients", [{"kbo": "0206731645", "code": 1}]),
        ("k", "key", b"\0" * 16), ("k", "seq", 1),
    ],
)  # fmt: skip
def test_a_value_that_is_other_is_found(ground: Ground, kind: str, name: str, value: Any) -> None:
    """In each kind of file, of each kind of column; file and row group are named."""
    file = altered(ground, kind, with_first(name, value), at=1)
    findings = verify_derived(ground.archive)
    assert (file, 0) in {(fault.file, fault.row_group) for fault in findings.faults}


@pytest.mark.parametrize("name", ["exchanges", "router_us", "month", "code", "requester"])
def test_a_rollup_that_does_not_add_up_is_found(ground: Ground, name: str) -> None:
    value: Any = "0" if name == "requester" else 77
    altered(ground, "r", with_first(name, value))
    (said,) = told(verify_derived(ground.archive))
    assert "the rollup does not add up" in said


def test_rows_out_of_order_are_found(ground: Ground) -> None:
    """The same rows in another order would not be found by who looks for them."""

    def turned(table: pa.Table) -> pa.Table:
        return table.take(pa.array(range(len(table) - 1, -1, -1)))

    file = altered(ground, "p", turned)
    findings = verify_derived(ground.archive)
    assert "rows are not in their order" in told(findings)
    assert {fault.file for fault in findings.faults} == {file}


@pytest.mark.parametrize("kind", ["t", "p", "u", "k", "r"])
def test_a_file_that_cannot_be_read_is_found(ground: Ground, kind: str) -> None:
    file = file_of(ground.archive, ground.files(kind)[0].path)
    file.write_bytes(file.read_bytes()[:-1])
    findings = verify_derived(ground.archive)
    assert (file, "cannot be read") in {(fault.file, fault.what) for fault in findings.faults}


@pytest.mark.parametrize(("stretch", "around"), [(1, 8), (7, 64), (1000, 0)])
def test_stretches_see_the_same(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, stretch: int, around: int
) -> None:
    """Exchanges across the ends of a stretch are judged by one of them or by none."""
    monkeypatch.setattr(verifier, "STRETCH_LEAVES", stretch)
    monkeypatch.setattr(verifier, "AROUND_LEAVES", around)
    findings = verify_derived(ground.archive, Leaves(3, 60))
    assert told(findings) == []
    assert findings.leaves == 57


def test_only_the_leaves_asked_for_are_judged(ground: Ground) -> None:
    """A fault elsewhere is left to who looks there."""
    altered(ground, "k", with_first("seq", 10**6), at=3)
    elsewhere = ground.files("k")[3]
    first, end = elsewhere.first_leaf, elsewhere.end_leaf
    assert told(verify_derived(ground.archive, Leaves(0, first))) == []
    faults = verify_derived(ground.archive, Leaves(first, end)).faults
    assert [(fault.what, first <= (fault.leaf or 0) < end) for fault in faults] == [
        ("no k file has a row that it must have", True)
    ]


def test_the_verb_says_what_is_wrong(ground: Ground, capsys: pytest.CaptureFixture[str]) -> None:
    archive = ["--archive", str(ground.archive)]
    assert main(["log", "verify", "derived", *archive]) == 0
    assert "no faults" in capsys.readouterr().out
    file = altered(ground, "p", with_first("code", 7))
    assert main(["log", "verify", "derived", *archive, "--to-leaf", "1000"]) == 1
    said = capsys.readouterr().out
    assert f"{file}, leaf " in said
    assert "row group 0: code is not what the entries say" in said
    assert main(["log", "verify", "derived", *archive, "--from-leaf", "-1"]) == 2
