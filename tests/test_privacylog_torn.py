"""Power cuts on what a disk may hold after each; ``bench/log_faults.py`` makes ten thousand."""

import os
import tempfile
from pathlib import Path
from random import Random

from bench import log_torn
from bench.log_disk import Watch
from bench.log_left import left_by_a_cut, left_by_a_kill
from ksz_router.privacylog.durable import DISK, sync_folder, write_new


def test_no_cut_of_the_power_loses_or_doubles_anything() -> None:
    """Torn writes, lost sectors, kills and garbage, on writers, sequencer and sealer together."""
    told: list[str] = []
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        counts = log_torn.Trials(Path(folder), 20_261_122, told.append).run(12)
    assert told == []
    assert counts.is_clean
    assert (counts.trials, counts.torn, counts.killed, counts.garbage) == (12, 6, 3, 3)


def test_what_a_cut_leaves_is_what_a_disk_may_hold(tmp_path: Path) -> None:
    """What was flushed is there, what was not is there or is not, sector by sector."""
    disk, chance = tmp_path / "disk", Random(1)
    disk.mkdir()
    with Watch(disk) as watch:
        write_new(disk / "whole", b"a" * 2000)
        flushed = len(watch.changes)
        file = disk / "torn"
        descriptor = os.open(file, os.O_CREAT | os.O_RDWR)
        sync_folder(disk)
        DISK.write(descriptor, b"b" * 2048, 0)
        os.close(descriptor)
    assert watch.unseen() == []
    seen: set[bytes] = set()
    for number in range(60):
        left = tmp_path / str(number)
        left_by_a_cut(watch, len(watch.changes), left, chance)
        assert (left / "whole").read_bytes() == b"a" * 2000
        data = (left / "torn").read_bytes()
        assert all(
            data[at : at + 512] in {b"b" * 512, bytes(512)} for at in range(0, 2048, 512)
        ) or (data == b"")
        seen.add(data)
    assert {b"", b"b" * 2048} < seen
    assert len(seen) > 6
    assert flushed < len(watch.changes)
    killed = tmp_path / "killed"
    left_by_a_kill(watch, flushed, killed)
    assert [path.name for path in killed.iterdir()] == ["whole"]
