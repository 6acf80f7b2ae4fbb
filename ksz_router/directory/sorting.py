"""Sort more records than memory holds: sorted runs on disk, merged while they are read back."""

import heapq
from collections.abc import Iterator
from functools import partial
from io import BufferedReader
from pathlib import Path

RUN_RECORDS = 1_000_000
"""Records in memory at once: some 100 MB. 275 million rows make 275 runs, one open file each."""


class Sorter:
    """Takes byte strings of one length in any order and gives them back in theirs.

    What comes in order already stays one run, so that a sorted input is not merged at all.
    """

    def __init__(self, scratch: Path, record_bytes: int, run_records: int = RUN_RECORDS) -> None:
        self._scratch = scratch
        self._record_bytes = record_bytes
        self._run_records = run_records
        self._waiting: list[bytes] = []
        self._runs: list[Path] = []
        self._last = b""
        self.count = 0

    def add(self, record: bytes) -> None:
        """Take one record of ``record_bytes``."""
        self._waiting.append(record)
        self.count += 1
        if len(self._waiting) == self._run_records:
            self._write_run()

    def sorted(self) -> Iterator[bytes]:
        """Give all records back, in order; no more may be added."""
        self._write_run()
        streams = [run.open("rb") for run in self._runs]
        try:
            yield from heapq.merge(*map(self._read_run, streams))
        finally:
            for stream in streams:
                stream.close()

    def _write_run(self) -> None:
        records = self._waiting
        if not records:
            return
        records.sort()
        if not self._runs or records[0] < self._last:
            self._runs.append(self._scratch / f"run-{len(self._runs)}")
        with self._runs[-1].open("ab") as file:
            file.writelines(records)
        self._last = records[-1]
        self._waiting = []

    def _read_run(self, stream: BufferedReader) -> Iterator[bytes]:
        return iter(partial(stream.read, self._record_bytes), b"")
