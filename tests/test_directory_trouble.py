"""A directory that is damaged, and a disk that is full: the writer says so, and of nobody."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from ksz_router.directory.change import Applied, Change, Operation, Reason, Refused
from ksz_router.directory.packing import DirectoryError, Record, pack, pack_key
from ksz_router.directory.writer import Writer
from ksz_router.model import OPEN, Line, NumberStatus
from tests.daemon_ground import FORMER, NEIGHBOUR, NOBODY, load_directory
from tests.test_directory_services import NOW_MS, exchange
from tests.worlds import LINES, PERSON


@pytest.fixture
def target(tmp_path: Path) -> Path:
    load_directory(tmp_path / "directory", {PERSON: LINES, NEIGHBOUR: LINES}, {FORMER: NEIGHBOUR})
    return tmp_path / "directory"


@pytest.fixture
def writer(target: Path) -> Iterator[Writer]:
    opened = Writer.open(target)
    yield opened
    opened.close()


def inscription(number: int, of: str = PERSON) -> Change:
    line = Line(17, 1, 3, 0, 20300101, OPEN)
    return Change(exchange(number), of, Operation.INSCRIBE, line)


def put(writer: Writer, number: str, value: bytes) -> None:
    """Damage: put a value under a number as no change would."""
    with writer._environment.begin(writer._databases.persons, write=True) as transaction:
        transaction.put(pack_key(number), value)


def test_numbers_that_do_not_name_each_other_are_damage_and_leak_nothing(writer: Writer) -> None:
    """Not a fault of the program, which would end with the number in its last words, each time."""
    alone = Record(status=NumberStatus.REPLACED, others=(NEIGHBOUR,))
    for others in ((), (PERSON,), (FORMER, PERSON)):
        put(writer, FORMER, pack(alone))
        put(writer, NEIGHBOUR, pack(Record(status=NumberStatus.ACTIVE, others=others)))
        reactivation = Change(exchange(len(others)), FORMER, Operation.REACTIVATE)
        with pytest.raises(DirectoryError) as caught:
            writer.apply([reactivation], NOW_MS * 1000)
        assert not any(number in str(caught.value) for number in (PERSON, FORMER, NEIGHBOUR))


def test_a_full_disk_is_a_sentence_and_no_end_in_disorder(target: Path) -> None:
    """At the stop the mark cannot be written: the one of before holds. At the start: refused."""
    writer = Writer.open(target)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        writer.close()
        with pytest.raises(DirectoryError, match="cannot be opened to be changed"):
            Writer.open(target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    again = Writer.open(target)
    assert isinstance(again.apply([inscription(1)], NOW_MS * 1000)[0], Applied)
    again.close()


def test_a_refusal_is_a_refusal_after_a_repeat_too(writer: Writer) -> None:
    """A repeat of a refused change is not judged anew, although it would be taken now."""
    asked = inscription(1, of=NOBODY)
    (refused,) = writer.apply([asked], NOW_MS * 1000)
    writer.apply([Change(exchange(50), NOBODY, Operation.NEW_NUMBER)], NOW_MS * 1000)
    assert writer.apply([asked], NOW_MS * 1000) == [Refused(Reason.NUMBER_UNKNOWN, repeated=True)]
    assert refused == Refused(Reason.NUMBER_UNKNOWN)


def test_one_exchange_id_twice_in_a_batch_is_one_change(writer: Writer) -> None:
    """A retry may reach the program before the first attempt was written."""
    first, again = writer.apply([inscription(1)] * 2, NOW_MS * 1000)
    assert isinstance(first, Applied)
    assert isinstance(again, Applied)
    assert (again.version, again.repeated, first.repeated) == (first.version, True, False)
    assert writer.version == first.version
