"""What the SDK says in a program of the router is an event as all others, one JSON line."""

import json
import logging

import pytest

from ksz_router.daemon import oplog


def test_what_the_sdk_says_is_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    """Of one line, whatever the message holds, and without a number."""
    name = "ksz_router.sdk.of_a_test"
    oplog.hear_sdk(oplog.set_up("directory"), name)
    logging.getLogger(name).warning(
        "a handshake failed: %s\nand more of %s", "closed", "85073099635"
    )
    (line,) = capsys.readouterr().err.splitlines()
    event = json.loads(line)
    assert (event["event"], event["level"], event["process"]) == (
        "sdk_says", "warning", "directory",
    )  # fmt: skip
    assert event["reason"] == "a handshake failed: closed\nand more of (withheld)"
