"""``ksz-router directory backup`` and ``restore``: a copy while it serves, and the way back."""

import argparse
import json
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from ksz_router.cli import OK, UsageError
from ksz_router.cli.progress import drawn
from ksz_router.directory.backup import Wanted, back_up, restore
from ksz_router.directory.replay import FOREVER

ACTIONS = {"backup", "restore"}


def add(
    actions: "argparse._SubParsersAction[ArgumentParser]",
    add_place: Callable[[ArgumentParser], None],
    add_json: Callable[[ArgumentParser], None],
) -> None:
    """Declare the two actions and their arguments."""
    action = actions.add_parser("backup", help="copy the directory while it serves and is changed")
    action.add_argument("destination", type=Path, metavar="DEST", help="a folder that is not yet")
    add_place(action)
    add_json(action)

    action = actions.add_parser(
        "restore", help="check a backup in full and let it serve, brought forward if you wish"
    )
    action.add_argument("backup", type=Path, metavar="BACKUP")
    action.add_argument(
        "--journal-of",
        type=Path,
        metavar="DIR",
        help="a directory or backup that recorded what came after; its changes are applied too",
    )
    until = action.add_mutually_exclusive_group()
    until.add_argument(
        "--until-version", type=int, metavar="N", help="apply them up to this version"
    )
    until.add_argument(
        "--until-time",
        metavar="TIME",
        help="apply them up to this moment, such as 2026-11-23T14:02+01:00",
    )
    action.add_argument(
        "--above",
        type=int,
        default=0,
        metavar="N",
        help="the highest version known to have served, where the old directory is lost",
    )
    add_place(action)
    add_json(action)


def run(arguments: Namespace, target: Path) -> int:
    """Do it and return the exit code."""
    return (
        _back_up(arguments, target) if arguments.action == "backup" else _restore(arguments, target)
    )


def _back_up(arguments: Namespace, target: Path) -> int:
    made = back_up(target, arguments.destination)
    if arguments.json:
        print(json.dumps({"directory": str(arguments.destination), **made._asdict()}))
    else:
        print(
            f"{arguments.destination}: version {made.version}, {made.numbers} numbers, "
            f"{made.lines} lines, {made.bytes} bytes"
        )
    return OK


def _restore(arguments: Namespace, target: Path) -> int:
    is_bounded = arguments.until_version is not None or arguments.until_time is not None
    if is_bounded and arguments.journal_of is None:
        raise UsageError("restore: --until-* needs --journal-of, whose changes it bounds")
    version_max = FOREVER if arguments.until_version is None else arguments.until_version
    wanted = Wanted(
        journal_of=arguments.journal_of,
        version_max=version_max,
        until_us=_moment_us(arguments.until_time),
        above=arguments.above,
    )
    with drawn() as progress:
        restored = restore(
            arguments.backup,
            target,
            wanted=wanted,
            now_us=time.time_ns() // 1000,
            progress=progress,
        )
    if arguments.json:
        print(json.dumps({"directory": str(target), **restored._asdict()}))
    else:
        print(
            f"{target}: version {restored.version}, with the content of version "
            f"{restored.came_from}: {restored.numbers} numbers, {restored.lines} lines"
        )
    return OK


def _moment_us(text: str | None) -> int:
    if text is None:
        return FOREVER
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise UsageError("--until-time: write a moment with its zone: 2026-11-23T14:02+01:00")
    return int(moment.timestamp() * 1_000_000)
