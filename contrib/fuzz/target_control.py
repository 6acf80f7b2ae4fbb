"""What an operator asks on the admin socket, and what workers and supervisor tell each other."""

from collections.abc import Iterator

import msgspec

from contrib.fuzz import targets
from ksz_router.daemon import control
from ksz_router.daemon.admin import Question, question_of


def one_input(data: bytes) -> None:
    """A line of the admin socket: a question, or words for the operator."""
    asked = question_of(data)
    if isinstance(asked, Question):
        assert asked.verb in ("status", "reload")
    else:
        assert len(msgspec.json.encode({"error": asked})) < 4096


def seeds() -> Iterator[bytes]:
    """What may be asked, and orders, which are no questions."""
    yield b'{"verb":"status"}\n'
    yield b'{"verb":"reload"}\n'
    yield msgspec.json.encode(control.Load("b2f6c01d"))
    yield b'{"verb":"\xff"}'
    yield b'{"x":' + b"[" * 5_000


if __name__ == "__main__":
    targets.run(__file__)
