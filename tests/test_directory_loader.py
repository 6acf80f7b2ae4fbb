"""Loading: what a file may say, what a wrong one is answered, and that it is all or nothing."""

import fcntl
from itertools import pairwise
from pathlib import Path

import pytest

from ksz_router.directory import Directory, DirectoryError, folder
from ksz_router.directory.loader import REASONS_MAX, Loaded, LoadRefusedError, load
from ksz_router.limits import person_lines_max, person_numbers_max
from ksz_router.model import ANY_TYPE, OPEN, Line, NumberStatus
from ksz_router.persons import Person, pack_lines
from tests.directory_files import HEADING, A, B, C, D, line, loaded, number, person, written


def look_up(folder: Path, *numbers: str) -> list[Person | None]:
    directory = Directory.open(folder / "directory")
    try:
        return directory.look_up(numbers)
    finally:
        directory.close()


def test_a_file_becomes_persons(tmp_path: Path) -> None:
    """Number rows and line rows in any order; an empty type is any, an empty end is open."""
    made = loaded(
        tmp_path,
        "# what begins with a hash is left out",
        line(A, "17,,902", begin="2020-02-29", end="2020-03-01", phase="3", changed="2020-03-02"),
        person(B, "deceased", deceased="2024-05-17"),
        person(A),
        line(A, "11,1,0"),
    )
    assert made == Loaded(version=1, numbers=2, lines=2)
    active, deceased = NumberStatus.ACTIVE, NumberStatus.DECEASED
    assert look_up(tmp_path, A, B) == [
        Person(
            active,
            A,
            active,
            pack_lines(
                (
                    Line(11, 1, 0, 1, 20150101, OPEN, 0),
                    Line(17, ANY_TYPE, 902, 3, 20200229, 20200301, 20200302),
                )
            ),
        ),
        Person(deceased, B, deceased, b"", 20240517),
    ]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (person("85073099735"), "insz: is not"),
        (person(""), "insz: is not"),
        (person("٨" * 11), "insz: is not"),
        (person(A, "gone"), "status: must be one of"),
        (person(A, "replaced"), "current: must be given"),
        (person(A, "active", B), "current: must be given"),
        (person(A, "replaced", "85073099735"), "current: is not"),
        (person(A, "replaced", A), "current: is the number itself"),
        (person(A, "deceased"), "deceased: must be given"),
        (person(A, "active", "", "2020-01-01"), "deceased: must be given"),
        (person(A, "deceased", "", "2020-02-30"), "deceased: must be a calendar day"),
        (person(A) + ",", "has 12 columns"),
        (A, "has 1 columns"),
        (f"{A},active,,,17,1,2,1,2020-01-01,,", "sector to changed: must be empty"),
        (f"{A},,{B},,17,1,2,1,2020-01-01,,", "current, deceased: must be empty"),
        (line(A, "1000,1,2"), "sector: must be"),
        (line(A, ",1,2"), "sector: must be"),
        (line(A, "17,x,2"), "type: must be"),
        (line(A, "17,-1,2"), "type: must be"),
        (line(A, "17,1,"), "capacity: must be"),
        (line(A, "17,1,999"), "capacity: 999 is the status"),
        (line(A, "17,1,901"), "capacity: must be from 0 to 900, or 902"),
        (line(A, "17,1,٢"), "capacity: must be"),
        (line(A, phase=""), "phase: must be"),
        (line(A, phase="1000"), "phase: must be"),
        (line(A, begin=""), "begin: must be a calendar day"),
        (line(A, begin="20200101"), "begin: must be a calendar day"),
        (line(A, begin="2020-W01-1"), "begin: must be a calendar day"),
        (line(A, begin="1799-12-31"), "begin: must be a calendar day"),
        (line(A, end="2014-12-31"), "end: is before begin"),
        (line(A, end="9999-12-31"), "end: must be a calendar day"),
        (line(A, changed="yesterday"), "changed: must be a calendar day"),
        ('"' + A, "is not CSV"),
    ],
)
def test_a_bad_row_is_refused_with_its_place_and_reason(tmp_path: Path, row: str, why: str) -> None:
    """The message has file, row and column, and never what stood there."""
    file = written(tmp_path, person(A) if row.startswith(f"{A},,") else person(C), row)
    with pytest.raises(LoadRefusedError) as caught:
        load(file, tmp_path / "directory")
    assert any(reason.startswith(f"{file}:3: {why}") for reason in caught.value.reasons)
    assert not any(insz in str(caught.value) for insz in (A, B, C, "85073099735"))
    assert not (tmp_path / "directory" / "current").exists()


@pytest.mark.parametrize(
    ("rows", "place"),
    [
        ([line(A)], "2: insz: the number has no number row"),
        ([person(A), line(A), person(A)], "4: insz: row 2 is about the same number"),
        ([person(A), line(A), line(A, begin="2020-01-01")], "4: begin: the period overlaps"),
        (
            [person(A), line(A, end="2020-01-01"), line(A, begin="2020-01-01")],
            "4: begin: the period overlaps that of row 3",
        ),
        ([person(A, "replaced", B)], "2: current: has no sound number row"),
        ([person(A, "replaced", B), person(B, "replaced", A)], "2: current: the replacements go"),
        (
            [person(A, "replaced", B), person(B, "replaced", C), person(C, "replaced", B)],
            "2: current: the replacements go round",
        ),
    ],
)
def test_rows_that_contradict_each_other_are_refused(
    tmp_path: Path, rows: list[str], place: str
) -> None:
    """The reason names both rows where there are two."""
    file = written(tmp_path, *rows)
    with pytest.raises(LoadRefusedError) as caught:
        load(file, tmp_path / "directory")
    assert any(reason.startswith(f"{file}:{place}") for reason in caught.value.reasons)


def test_adjacent_periods_and_other_capacities_do_not_overlap(tmp_path: Path) -> None:
    """Overlapping is what one capacity of one role does."""
    made = loaded(
        tmp_path,
        person(A),
        line(A, end="2019-12-31"),
        line(A, begin="2020-01-01"),
        line(A, "17,1,3"),
        line(A, "17,,2"),
        line(A, "17,0,2"),
        line(A, "18,1,2"),
    )
    assert made.lines == 6


def test_a_person_has_a_bounded_count_of_numbers_and_of_lines(tmp_path: Path) -> None:
    """As many as the limits say, and not one more."""
    chain = [number(900 - n) for n in range(person_numbers_max + 1)]
    links = [person(a, "replaced", b) for a, b in pairwise(chain)]
    whole = loaded(tmp_path, *links[1:], person(chain[-1]))
    assert whole.numbers == person_numbers_max
    found = look_up(tmp_path, chain[1])[0]
    assert found is not None
    assert found.current == chain[-1]
    with pytest.raises(LoadRefusedError, match="16 numbers at most"):
        loaded(tmp_path, *links, person(chain[-1]))
    days = [f"{1900 + n // 336}-{1 + n // 28 % 12:02}-{1 + n % 28:02}" for n in range(5_000)]
    rows = [line(A, begin=day, end=day) for day in days[: person_lines_max + 1]]
    assert loaded(tmp_path, person(A), *rows[1:]).lines == person_lines_max
    with pytest.raises(LoadRefusedError, match="4096 lines at most"):
        loaded(tmp_path, person(A), *rows)


def test_a_refused_file_leaves_the_version_that_serves(tmp_path: Path) -> None:
    """Nothing is swapped in, nothing is left behind."""
    loaded(tmp_path, person(A))
    target = tmp_path / "directory"
    before = sorted(path.name for path in target.iterdir())
    with pytest.raises(LoadRefusedError):
        loaded(tmp_path, person(A), person(A))
    assert sorted(path.name for path in target.iterdir()) == before
    assert look_up(tmp_path, A) != [None]


def test_what_follows_from_a_bad_row_is_not_told(tmp_path: Path) -> None:
    """A bad number row is one reason, not one more for each of its lines."""
    with pytest.raises(LoadRefusedError) as caught:
        loaded(tmp_path, person(A, "gone"), line(A), line(A, "18,0,1"))
    assert len(caught.value.reasons) == 1


def test_reasons_are_bounded(tmp_path: Path) -> None:
    """A file of another kind does not fill the screen."""
    with pytest.raises(LoadRefusedError) as caught:
        loaded(tmp_path, *["rubbish"] * 1_000)
    assert len(caught.value.reasons) == REASONS_MAX + 1


@pytest.mark.parametrize("text", ["", "insz,status\n", f"{HEADING.upper()}\n"])
def test_a_file_without_the_heading_is_refused(tmp_path: Path, text: str) -> None:
    """The heading is how a file says that it is one of these."""
    file = tmp_path / "persons.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(LoadRefusedError, match="the first row must be the heading"):
        load(file, tmp_path / "directory")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are a reason, not a crash."""
    file = tmp_path / "persons.csv"
    file.write_bytes(f"{HEADING}\n".encode() + bytes(range(256)))
    with pytest.raises(LoadRefusedError):
        load(file, tmp_path / "directory")


def test_a_missing_file_is_an_error_that_changes_nothing(tmp_path: Path) -> None:
    """And the message says so."""
    with pytest.raises(DirectoryError, match="nothing was changed"):
        load(tmp_path / "nowhere.csv", tmp_path / "directory")


def test_every_load_makes_the_next_version_and_keeps_the_one_before(tmp_path: Path) -> None:
    """So that a reader that is about to open the old one finds it."""
    versions = [loaded(tmp_path, person(A)).version for _ in range(3)]
    assert versions == [1, 2, 3]
    names = sorted(path.name for path in (tmp_path / "directory").glob("version-*"))
    assert names == ["version-00000002", "version-00000003"]


def test_what_a_killed_load_left_behind_is_removed(tmp_path: Path) -> None:
    """Scratch folders do not pile up, and a version without a pointer does not stand in the way."""
    target = tmp_path / "directory"
    (target / "loading-killed").mkdir(parents=True)
    (target / "version-00000004").mkdir()
    assert loaded(tmp_path, person(A)).version == 5
    assert sorted(path.name for path in target.iterdir()) == [
        "current",
        "version-00000005",
        "write.lock",
    ]


def test_two_loads_do_not_run_at_once(tmp_path: Path) -> None:
    """The second is refused at once."""
    target = tmp_path / "directory"
    target.mkdir()
    with (target / "write.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DirectoryError, match="a writer, a load or a restore"):
            loaded(tmp_path, person(A))
    assert loaded(tmp_path, person(A)).version == 1


def test_progress_ends_where_it_should(tmp_path: Path) -> None:
    """Each part of the work is told to its end, in order."""
    told: list[tuple[str, int, int]] = []
    file = written(tmp_path, person(A), line(A))
    load(file, tmp_path / "directory", progress=lambda *step: told.append(step))
    ends = dict.fromkeys(what for what, done, total in told if done == total)
    assert list(ends) == ["read", "write", "seal"]
    assert all(0 <= done <= total for _, done, total in told)


def test_several_numbers_of_one_person_are_one_family(tmp_path: Path) -> None:
    """A chain and a fork: A to B to D, and C to D."""
    loaded(
        tmp_path,
        person(A, "replaced", B),
        person(B, "replaced", D),
        person(C, "replaced", D),
        person(D),
        line(A, "17,1,1"),
        line(B, "17,1,2"),
        line(C, "17,1,3"),
        line(D, "17,1,4"),
    )
    for found in look_up(tmp_path, A, B, C, D):
        assert found is not None
        assert (found.current, found.current_status) == (D, NumberStatus.ACTIVE)
        assert sorted(row.capacity for row in found.lines) == [1, 2, 3, 4]


def test_the_example_of_the_document_loads_as_it_says(tmp_path: Path) -> None:
    """The CSV text and the bytes of ``docs/directory-format.md`` are each other's."""
    document = (Path(__file__).parents[1] / "docs/directory-format.md").read_text(encoding="utf-8")
    csv, drawn = document.split("```\n")[1:5:2]
    file = tmp_path / "example.csv"
    file.write_text(csv, encoding="utf-8")
    version = load(file, tmp_path / "directory").version
    rows: dict[str, bytes] = {}
    for row in drawn.splitlines():
        key, hexadecimal = row[:20].strip(), row[20:53].strip()
        latest = key or next(reversed(rows))
        rows[latest] = rows.get(latest, b"") + bytes.fromhex(hexadecimal)
    place = folder.folder_of(tmp_path / "directory", version)
    with folder.open_environment(place) as environment:
        persons = environment.open_db(folder.PERSONS, create=False)
        with environment.begin(persons) as transaction:
            assert dict(transaction.cursor()) == {
                bytes.fromhex(key): value for key, value in rows.items()
            }
