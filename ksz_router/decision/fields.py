"""Whether the fields of a request are well formed, whatever the tables say."""

from ksz_router.identifiers import is_application, is_insz, is_kbo
from ksz_router.limits import (
    deadline_ms_max,
    framework_chars_max,
    means_chars_max,
    ticket_chars_max,
)
from ksz_router.messages import Request


def malformed_of_requester(request: Request, *, is_test: bool) -> str:
    """Name the first malformed field of those that say who asks and as what; empty: none."""
    if (request.sector is None) != (request.type is None):
        return "type"
    if request.user is None and request.application is None and not is_test:
        return "user"
    if request.user is not None and not is_insz(request.user):
        return "user"
    if request.application is not None and not is_application(request.application):
        return "application"
    if len(request.means) > means_chars_max or not _is_plain(request.means):
        return "means"
    if not 0 <= request.level <= 4:
        return "level"
    if request.capacity is not None and not 0 <= request.capacity < 999:
        return "capacity"
    framework = request.legal_framework
    if framework is not None and (
        not 0 < len(framework) <= framework_chars_max or not framework.isprintable()
    ):
        return "legal_framework"
    return ""


def malformed(request: Request) -> str:
    """Name the first malformed field of the others; empty: none. Person and period come apart."""
    ticket = request.ticket
    if not (0 < len(ticket) <= ticket_chars_max and ticket.isascii() and ticket.isprintable()):
        return "ticket"
    if request.final_client is not None and not is_kbo(request.final_client):
        return "final_client"
    if request.enterprise is not None and not is_kbo(request.enterprise):
        return "enterprise"
    if request.source is not None and not is_kbo(request.source):
        return "source"
    return "" if 0 <= request.deadline_ms <= deadline_ms_max else "deadline_ms"


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()
