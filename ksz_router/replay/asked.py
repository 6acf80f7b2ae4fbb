"""What keepers of sectoral directories may have said, so that the record holds. Pure.

An entry keeps what their answers came to, and not the answers.
"""

from collections.abc import Iterator, Mapping, Sequence

from ksz_router.decision import Question, Standing
from ksz_router.model import Availability
from ksz_router.privacylog.entry import Entry

Answers = Mapping[Question, bool | None]


class Said(Mapping[Question, bool | None]):
    """Answers to every question, by whom it is about.

    Args:
        own: Of the requester.
        sources: Of a source, by its KBO number.
        rest: Of those that do not stand there.
    """

    def __init__(
        self, *, own: bool | None, sources: Mapping[str, bool | None], rest: bool | None
    ) -> None:
        self._own = own
        self._sources = sources
        self._rest = rest

    def __getitem__(self, question: Question) -> bool | None:
        return (
            self._own if question.is_whole else self._sources.get(question.institution, self._rest)
        )

    def __iter__(self) -> Iterator[Question]:
        raise TypeError("the questions are not listed: there is an answer to each")

    def __len__(self) -> int:
        raise TypeError("the questions are not listed: there is an answer to each")


KNOWN = Said(own=True, sources={}, rest=True)
"""Everybody is known everywhere."""


def said(
    entry: Entry, standing: Standing, rows: Sequence[Availability]
) -> Iterator[Answers | None]:
    """Return what may have been said, the likeliest first.

    Args:
        entry: The record.
        standing: Says whether anybody is asked.
        rows: The sources in force and in reach.
    """
    if not standing.asks:
        yield None
        return
    put_to: dict[str, bool | None] = dict.fromkeys(entry.destinations, True)
    for violation in entry.violations:
        put_to.pop(violation.rpartition(":")[2], None)
    asked = dict.fromkeys(row.kbo for row in rows if row.keeper is not None)
    for own in (True, False, None):
        yield Said(own=own, sources={}, rest=True)
        for other in (False, None):
            yield Said(own=own, sources=put_to, rest=other)
            for kbo in asked:
                yield Said(own=own, sources={kbo: other}, rest=True)
                yield Said(own=own, sources={kbo: True}, rest=other)
