"""An entry of the privacy log: not an entry, or one whose canonical form is the bytes."""

from collections.abc import Iterator

from contrib.fuzz import targets
from ksz_router.model import Line
from ksz_router.privacylog.entry import Entry, EntryMalformed, Kind, canonical, parse, parse_head

_WHOLE = Entry(
    kind=Kind.REQUEST, at_us=1_795_300_000_000_000, exchange=bytes(range(16)), code=4001, stage=4,
    service="UnemploymentData", service_version=3, requester="0999016460", sector=17, type=1,
    capacity=2, user=bytes(16), means="eid", level=4, ticket=bytes(16), person=bytes(16),
    begin=20260101, destinations=("0999010126",), generation="b2f6c01d", grant="G-1", basis="B",
    line=Line(17, 1, 2, 1, 20200101, 99991231, 0), violations=("own:log",), digest=bytes(32),
    counts=((21, 3),), reader="auditor", purpose="file 12",
)  # fmt: skip


def one_input(data: bytes) -> None:
    """Both readers; whatever the short one refuses, the long one refuses."""
    try:
        head = parse_head(data)
    except EntryMalformed:
        head = None
    try:
        entry = parse(data)
    except EntryMalformed as error:
        assert len(str(error)) < 100, "it says what was wrong, not what was there"
        return
    assert canonical(entry) == data or len(data) > 4096
    assert head is not None
    assert (head.kind, head.at_us, head.exchange, head.code) == (
        entry.kind, entry.at_us, entry.exchange, entry.code,
    )  # fmt: skip


def seeds() -> Iterator[bytes]:
    """A full entry and one of each kind."""
    yield canonical(_WHOLE)
    for kind in Kind:
        yield canonical(Entry(kind=kind, at_us=1))


if __name__ == "__main__":
    targets.run(__file__)
