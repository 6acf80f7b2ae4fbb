"""The operational log: JSON lines on standard error, one event each, with fixed names.

What is logged are numbers, codes, KBO numbers, URIs and file names. Nothing that comes from a
payload, an INSZ, a ticket or a key is ever passed to an event; the processor below is a second
lock, which drops a value that looks like an INSZ.
"""

import contextlib
import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO, cast

import structlog

_TEXT_MAX = 300
_LOOKS_LIKE_INSZ = re.compile(r"\b[0-9]{11}\b")
"""A word of its own: eleven digits in a row inside a generation's name are no number."""


def _without_persons(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = _LOOKS_LIKE_INSZ.sub("(withheld)", value[:_TEXT_MAX])
    return event


class _Unfailing:
    """Standard error, whatever becomes of it: for want of a log line nobody stops."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            return sys.stderr.write(text)
        return 0

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


def set_up(process: str) -> structlog.typing.FilteringBoundLogger:
    """Configure the log of this process and return its logger.

    Args:
        process: ``supervisor`` or ``worker-0``; in every line.
    """
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _without_persons,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Unfailing())),
        cache_logger_on_first_use=True,
    )
    logger = structlog.get_logger().bind(process=process)
    return cast("structlog.typing.FilteringBoundLogger", logger)


def hear_sdk(log: structlog.typing.FilteringBoundLogger, name: str = "ksz_router.sdk") -> None:
    """Make an event ``sdk_says`` of what the SDK says by the standard library's logging."""
    logging.getLogger(name).addHandler(_FromSdk(log))


class _FromSdk(logging.Handler):
    def __init__(self, log: structlog.typing.FilteringBoundLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.warning("sdk_says", reason=record.getMessage())
