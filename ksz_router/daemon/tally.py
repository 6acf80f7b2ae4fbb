"""Events that a peer can cause at will, logged once a second with their count, not one by one."""

from collections import Counter

import structlog

_KINDS_MAX = 32


class Tally:
    """Counts events of a worker until they are written. An event and its fields are one kind."""

    def __init__(self, log: structlog.typing.FilteringBoundLogger) -> None:
        self._log = log
        self._counts: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
        self._others: Counter[str] = Counter()

    def add(self, event: str, **fields: str) -> None:
        """Something happened. Of many kinds, the further ones are counted without fields."""
        kind = event, tuple(fields.items())
        if kind in self._counts or len(self._counts) < _KINDS_MAX:
            self._counts[kind] += 1
        else:
            self._others[event] += 1

    def write(self) -> None:
        """Write what was counted, one line for each kind, and forget it."""
        for (event, fields), count in self._counts.items():
            self._log.info(event, **dict(fields), count=count)
        for event, count in self._others.items():
            self._log.info(event, others=True, count=count)
        self._counts.clear()
        self._others.clear()
