"""Look-ups against a plain dictionary; and a directory that was touched does not serve."""

import multiprocessing
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import lmdb
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksz_router.directory import DamagedError, Directory, DirectoryError, folder, marks
from ksz_router.directory.check import check
from ksz_router.directory.packing import Record, pack, pack_key
from ksz_router.model import OPEN, Line, NumberStatus
from ksz_router.persons import Person
from tests.directory_files import A, B, line, loaded, number, person

NUMBERS = [number(counter) for counter in range(980, 999)]


class Kept(NamedTuple):
    """What the plain model keeps of a number."""

    status: NumberStatus
    current: str
    lines: list[Line]


@st.composite
def models(draw: st.DrawFn) -> dict[str, Kept]:
    """Random directories: chains and forks of replacements, lines under any of the numbers."""
    used = draw(st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=8, unique=True))
    model = {}
    for index, insz in enumerate(used):
        later = used[index + 1 :]
        replaced_by = draw(st.none() | st.sampled_from(later)) if later else None
        states = [state for state in NumberStatus if state is not NumberStatus.REPLACED]
        state = draw(st.sampled_from(states)) if replaced_by is None else NumberStatus.REPLACED
        keys = draw(st.lists(st.tuples(st.integers(17, 19), st.integers(-1, 1)), unique=True))
        lines = [Line(sector, kind, 2, 1, 20150101, OPEN) for sector, kind in keys]
        model[insz] = Kept(state, replaced_by or insz, lines)
    return model


def rows_of(model: dict[str, Kept]) -> Iterator[str]:
    for insz, kept in model.items():
        current = kept.current if kept.current != insz else ""
        deceased = "2024-05-17" if kept.status is NumberStatus.DECEASED else ""
        yield person(insz, kept.status.name.lower(), current, deceased)
        for row in kept.lines:
            kind = "" if row.type < 0 else row.type
            yield line(insz, f"{row.sector},{kind},{row.capacity}")


def end_of(model: dict[str, Kept], insz: str) -> str:
    while model[insz].current != insz:
        insz = model[insz].current
    return insz


def expected(model: dict[str, Kept], insz: str) -> tuple[object, ...] | None:
    if insz not in model:
        return None
    current = end_of(model, insz)
    family = [other for other in model if end_of(model, other) == current]
    lines = sorted(tuple(msgspec.structs.astuple(row)) for n in family for row in model[n].lines)
    state = model[current].status
    deceased = 20240517 if state is NumberStatus.DECEASED else 0
    return model[insz].status, current, state, lines, deceased


def seen(found: Person | None) -> tuple[object, ...] | None:
    if found is None:
        return None
    lines = sorted(tuple(msgspec.structs.astuple(row)) for row in found.lines)
    return found.status, found.current, found.current_status, lines, found.deceased


@settings(max_examples=40)
@given(models(), st.data())
def test_look_ups_agree_with_a_plain_dictionary(
    tmp_path_factory: pytest.TempPathFactory, model: dict[str, Kept], data: st.DataObject
) -> None:
    """Any directory, any batch, replacements followed over any chain."""
    place = tmp_path_factory.mktemp("model")
    loaded(place, *rows_of(model))
    batch = data.draw(st.lists(st.sampled_from(NUMBERS), max_size=8))

    directory = Directory.open(place / "directory")
    found = directory.look_up(batch)
    families = {insz: {insz, *directory.other_numbers(insz)} for insz in model}
    directory.close()

    assert [seen(row) for row in found] == [expected(model, insz) for insz in batch]
    for insz, family in families.items():
        assert family == {n for n in model if end_of(model, n) == end_of(model, insz)}
    assert check(place / "directory") == []


@given(st.none() | st.text(max_size=14) | st.sampled_from(["٨" * 11, f"{A}\n", f" {A}"]))
def test_what_is_no_number_is_nobody(opened: Directory, text: str | None) -> None:
    """A look-up raises on nothing that a peer can send."""
    assert opened.look_up([text, A]) == [None, opened.look_up([A])[0]]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Directory]:
    place = tmp_path_factory.mktemp("opened")
    loaded(place, person(A), line(A))
    directory = Directory.open(place / "directory")
    yield directory
    directory.close()


def test_a_reader_keeps_its_version_until_it_refreshes(tmp_path: Path) -> None:
    """A load under a reader changes nothing for it, two loads neither."""
    loaded(tmp_path, person(A), line(A))
    directory = Directory.open(tmp_path / "directory")
    for _ in range(2):
        loaded(tmp_path, person(B))
    kept = directory.look_up([A, B])
    assert (kept[0] is not None, kept[1], directory.version) == (True, None, 1)

    assert directory.refresh()
    assert not directory.refresh()
    later = directory.look_up([A, B])
    assert (later[0], later[1] is not None, directory.version) == (None, True, 3)
    assert (directory.numbers_count, directory.lines_count) == (1, 0)
    directory.close()
    directory.close()


def test_a_new_version_that_cannot_be_used_leaves_the_old_one_serving(tmp_path: Path) -> None:
    """The error says so each time, and the look-ups go on."""
    loaded(tmp_path, person(A))
    directory = Directory.open(tmp_path / "directory")
    loaded(tmp_path, person(B))
    (tmp_path / "directory/version-00000002/complete").unlink()
    for _ in range(2):
        with pytest.raises(marks.NotCheckedError):
            directory.refresh()
    assert directory.look_up([A]) != [None]
    directory.close()


def test_an_empty_directory_has_nobody(tmp_path: Path) -> None:
    """A heading alone is a directory too."""
    loaded(tmp_path)
    directory = Directory.open(tmp_path / "directory")
    assert directory.look_up([A, None]) == [None, None]
    assert directory.look_up([]) == []
    directory.close()


def test_where_there_is_no_directory_the_error_says_how_to_make_one(tmp_path: Path) -> None:
    """At the first start of a router."""
    with pytest.raises(folder.NoDirectoryError, match="ksz-router directory load"):
        Directory.open(tmp_path)


@pytest.mark.parametrize("name", ["../elsewhere", "version-1", "", "version-00000001\nx"])
def test_a_pointer_that_names_no_version_is_refused(tmp_path: Path, name: str) -> None:
    """It cannot lead out of the folder."""
    (tmp_path / "current").write_text(name)
    with pytest.raises(DirectoryError, match="names no version"):
        Directory.open(tmp_path)


def test_a_second_opening_in_one_process_is_a_typed_error(tmp_path: Path) -> None:
    """LMDB forbids it; the message says what to see to."""
    loaded(tmp_path, person(A))
    directory = Directory.open(tmp_path / "directory")
    with pytest.raises(DirectoryError, match="once only"):
        Directory.open(tmp_path / "directory")
    directory.close()


def test_it_is_not_used_across_a_fork(tmp_path: Path) -> None:
    """A child that inherited it is stopped at its first look-up."""
    loaded(tmp_path, person(A))
    directory = Directory.open(tmp_path / "directory")

    def child() -> None:
        with pytest.raises(AssertionError, match="fork"):
            directory.look_up([A])

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    directory.close()
    assert process.exitcode == 0


# What was copied, touched or damaged.


def test_a_copy_is_refused_until_it_was_checked(tmp_path: Path) -> None:
    """And then serves."""
    loaded(tmp_path, person(A), line(A))
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "directory", copy)
    with pytest.raises(marks.NotCheckedError, match="ksz-router directory check"):
        Directory.open(copy)
    assert check(copy) == []
    directory = Directory.open(copy)
    assert directory.look_up([A]) != [None]
    directory.close()


def data_of(target: Path) -> Path:
    return target / "version-00000001" / "data.mdb"


@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_one_changed_bit_is_found_anywhere(tmp_path: Path, place: str) -> None:
    """The directory does not serve, and the check names the file and admits nothing."""
    loaded(tmp_path, person(A), line(A))
    data = data_of(tmp_path / "directory")
    content = bytearray(data.read_bytes())
    content[{"first": 20, "middle": len(content) // 2, "last": -1}[place]] ^= 1
    data.write_bytes(content)
    for _ in range(2):
        with pytest.raises(marks.NotCheckedError):
            Directory.open(tmp_path / "directory")
        problems = check(tmp_path / "directory")
        assert [str(data) in problem for problem in problems] == [True]


def test_a_file_that_was_cut_is_found(tmp_path: Path) -> None:
    """LMDB itself would read past the end and end the process."""
    loaded(tmp_path, person(A), line(A))
    data = data_of(tmp_path / "directory")
    data.write_bytes(data.read_bytes()[:-4096])
    with pytest.raises(marks.NotCheckedError):
        Directory.open(tmp_path / "directory")
    assert check(tmp_path / "directory")


def test_without_its_mark_a_version_never_serves(tmp_path: Path) -> None:
    """No mark means that it was never completely written."""
    loaded(tmp_path, person(A))
    (tmp_path / "directory/version-00000001/complete").write_text("{}")
    with pytest.raises(marks.NotCheckedError, match="mark of completion"):
        Directory.open(tmp_path / "directory")
    with pytest.raises(marks.NotCheckedError, match="mark of completion"):
        check(tmp_path / "directory")


def tampered(target: Path, key: bytes, value: bytes, database: bytes = folder.PERSONS) -> None:
    """Write as somebody would who knows the format, marks included."""
    place = target / "version-00000001"
    with lmdb.open(str(place), max_dbs=4, map_size=1 << 20) as environment:
        handle = environment.open_db(database)
        with environment.begin(handle, write=True) as transaction:
            transaction.put(key, value)
    marks.write_mark(place, marks.make_mark(place))


@pytest.mark.parametrize(
    ("key", "content", "error"),
    [
        (folder.META, b'{"format":1}', folder.FormatError),
        (folder.META, b'{"format":', DamagedError),
        (folder.STATE, struct.pack(">QQQ", 0, 1, 0), DamagedError),
        (folder.STATE, b"cut", DamagedError),
    ],
)
def test_another_format_or_a_damaged_description_is_refused(
    tmp_path: Path, key: bytes, content: bytes, error: type[DirectoryError]
) -> None:
    """The error names the folder and the mend; the process can open it again after that."""
    loaded(tmp_path, person(A))
    target = tmp_path / "directory"
    tampered(target, key, content, folder.META)
    for _ in range(2):
        with pytest.raises(error, match="load the directory again") as caught:
            Directory.open(target)
        assert "version-00000001" in str(caught.value)


def a_line(begin: int, end: int = OPEN, sector: int = 17) -> Line:
    return Line(sector, 1, 2, 1, begin, end)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (b"\xff" * 7, "cut off or out of range"),
        (pack(Record(status=NumberStatus.ACTIVE, others=(B,))), "names a number that is missing"),
        (pack(Record(status=NumberStatus.DECEASED)), "day of death"),
        (
            pack(Record(status=NumberStatus.ACTIVE, lines=(a_line(20260101, 20250101),))),
            "out of range",
        ),
        (
            pack(Record(status=NumberStatus.ACTIVE, lines=(a_line(20260101, sector=4000),))),
            "out of range",
        ),
        (
            pack(Record(status=NumberStatus.ACTIVE, lines=(a_line(20260101),)))
            + pack(Record(status=NumberStatus.ACTIVE, lines=(a_line(20250101),)))[6:],
            "not in order",
        ),
    ],
)
def test_the_check_finds_values_that_no_load_writes(
    tmp_path: Path, value: bytes, problem: str
) -> None:
    """Every one is judged, and no problem names a person."""
    loaded(tmp_path, person(A))
    tampered(tmp_path / "directory", pack_key(A), value)
    problems = check(tmp_path / "directory")
    assert any(problem in found for found in problems)
    assert A not in str(problems)


def test_a_damaged_value_raises_a_typed_error_in_a_look_up(tmp_path: Path) -> None:
    """It names the folder and the mend, not the person."""
    loaded(tmp_path, person(A), person(B))
    tampered(tmp_path / "directory", pack_key(A), b"\xff" * 7)
    directory = Directory.open(tmp_path / "directory")
    with pytest.raises(DamagedError, match="directory check") as caught:
        directory.look_up([B, A])
    assert A not in str(caught.value)
    assert directory.look_up([B]) != [None]
    tampered_value = pack(Record(status=NumberStatus.REPLACED, others=(number(1),)))
    directory.close()
    tampered(tmp_path / "directory", pack_key(A), tampered_value)
    directory = Directory.open(tmp_path / "directory")
    with pytest.raises(DamagedError, match="missing"):
        directory.look_up([A])
    directory.close()
