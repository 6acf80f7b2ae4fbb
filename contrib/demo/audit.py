"""What the privacy log must say after the demonstration, asked with the commands of an auditor."""

import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from contrib.demo.cast import BANK
from contrib.stand import ROOT, Stand, StandError
from ksz_router.messages import Answer

_PAGE = 4096  # every frame begins on one; docs/privacylog-format.md
_MAGIC = b"KLPF"
_INTO_FRAME = 100  # behind the 40 bytes of a frame's header, within its encrypted body


def ask(stand: Stand, purpose: str, numbers: Sequence[str] = ()) -> list[Mapping[str, Any]]:
    """Return the log's rows, those about a person where numbers are given.

    Raises:
        StandError: the query failed, or says that rows may be missing.
    """
    words: list[object] = ["log", "query", "--config", stand.config, "--purpose", purpose, "--json"]
    if numbers:
        file = stand.folder / "numbers"  # a command line can be seen by everyone on the machine
        file.touch(mode=0o600)
        file.write_text("\n".join(numbers), encoding="ascii")
        words += ["--person", file]
    return [json.loads(line) for line in stand.command(*words).splitlines()]


def compare(rows: Sequence[Mapping[str, Any]], answers: Sequence[Answer]) -> tuple[int, list[str]]:
    """Return how many of the answers the log has with the same outcome, and what is not so.

    What the router's own institution told others of numbers was answered to itself.
    """
    faults = []
    asked = [row for row in rows if row["kind"] == "REQUEST" and row.get("requester") != BANK]
    found = {row["exchange"]: row for row in asked}
    logged = 0
    for answer in answers:
        own = answer.detail.get("retry") or answer.exchange.hex()
        exchange = str(uuid.UUID(hex=own))
        row = found.pop(exchange, None)
        if row is None:
            faults.append(f"exchange {exchange} is not in the log")
            continue
        code = row["code"] or (row["outcomes"][0]["code"] if row["outcomes"] else None)
        if code == answer.code:
            logged += 1
        else:
            faults.append(f"exchange {exchange}: answered {answer.code}, logged {code}")
    faults += [f"exchange {exchange} is in the log and was not asked" for exchange in found]
    return logged, faults


def verify(stand: Stand, what: str) -> Mapping[str, int]:
    """Return what ``wal`` or ``full`` verification counted; ``faults`` is 0 where all is whole.

    Raises:
        StandError: it could not run.
    """
    words = ("log", "verify", what, "--config", stand.config, "--json")
    return dict(json.loads(stand.command(*words, accept=(0, 1)).splitlines()[-1]))


def prove(stand: Stand, exchange: uuid.UUID, purpose: str) -> Path:
    """Return the file of a proof that the request of an exchange stands in the log.

    Raises:
        StandError: there is none.
    """
    file = stand.folder / f"{exchange}.tlog-proof"
    asked = ("--config", stand.config, "--purpose", purpose, "--exchange", exchange)
    stand.command("log", "prove", *asked, "--out", file)
    return file


def check_as_a_stranger(stand: Stand, proof: Path) -> str:
    """Return what a program says of a proof that knows only its format and the public keys.

    Raises:
        StandError: it does not hold.
    """
    program = ROOT / "contrib" / "verify_record.py"
    line = [sys.executable, str(program), str(proof), str(stand.checkpoint_keys / "vkeys")]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StandError(f"{program.name}: {done.stderr}")
    return done.stdout


def replay(stand: Stand, purpose: str) -> Mapping[str, int]:
    """Decide again on every request of the log; return how many came out the same, and not.

    Raises:
        StandError: it could not run.
    """
    words = ("log", "replay", "--config", stand.config, "--purpose", purpose, "--json")
    today = datetime.now(ZoneInfo("Europe/Brussels")).date()
    days = ("--from", today - timedelta(days=1), "--to", today)  # it may have begun before midnight
    printed = json.loads(stand.command(*words, *days, accept=(0, 1)).splitlines()[-1])
    return dict(printed["counts"])


def tamper(stand: Stand) -> tuple[Path, int, int, int]:
    """Copy the log and flip one bit of a frame in the middle of its fullest file.

    Returns:
        The file of the copy, the place of the flipped byte, and the place and the number of the
        frame that it lies in.
    """
    copy = stand.folder / "privacylog-tampered"
    shutil.copytree(stand.log, copy)
    places = {file: _frames(file) for file in copy.rglob("*.wal")}
    file = max(places, key=lambda file: len(places[file]))
    index = len(places[file]) // 2
    frame = places[file][index]
    place = frame + _INTO_FRAME
    with file.open("r+b") as stream:
        stream.seek(place)
        byte = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([byte ^ 1]))
    return file, place, frame, index + 1


def find_fault(stand: Stand, copy: Path) -> Mapping[str, Any] | None:
    """Return the first fault that verification finds in a copy of the log; None: it finds none."""
    words = ("log", "verify", "--log", copy, "--keys", stand.keys, "--json")
    try:
        printed = stand.command(*words, accept=(1,))
    except StandError:
        return None
    return dict(json.loads(printed.splitlines()[0]))


def _frames(file: Path) -> list[int]:
    """Return the places at which frames begin, as far as each fits on a page, as here."""
    data = file.read_bytes()
    return [at for at in range(_PAGE, len(data), _PAGE) if data.startswith(_MAGIC, at)]
