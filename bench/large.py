"""A rulebook as large as a country's: thousands of institutions, a hundred thousand grants.

The text of the example, with institutions, services and grants added that do not exist either.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from contrib.stand import EXAMPLE

INSTITUTIONS, SERVICES = 3_000, 200
_ROLES = {"17/1": (1, 2, 3), "11/0": (1,), "18/0": (1, 2), "12/0": (10, 30), "16/0": (1, 2)}
_SOURCE, _SOURCE_ROLE = "0999010126", "18/0"
_OWN = "0999020618"
_PER_DELIBERATION = 1_000
_USERS = 3


def write_text(folder: Path, grants: int) -> None:
    """Write the text of a rulebook with about as many grants, and no warnings of its own.

    One in a hundred is path A, held by a role; the others are path B, held by an institution.
    """
    shutil.copytree(EXAMPLE, folder)
    _manage_all(folder / "institutions" / "sources.toml")
    for part, rows in (
        ("institutions", _institutions()),
        ("services", _services()),
        ("availability", _availability()),
        ("rights", _rights()),
    ):
        (folder / part / "large.toml").write_text("\n".join(rows), encoding="utf-8")
    every = list(_grants(grants))
    for number, at in enumerate(range(0, len(every), _PER_DELIBERATION), 1):
        head = f'number = "L/{number}"\ndate = 2020-01-07\ntitle = "Synthetic"\n'
        rows_text = "\n".join(every[at : at + _PER_DELIBERATION])
        (folder / "deliberations" / f"large-{number:03}.toml").write_text(
            f"{head}\n{rows_text}", encoding="utf-8"
        )


def _manage_all(file: Path) -> None:
    """Let the institution under whose name messages change lines manage the new ones too."""
    text = file.read_text(encoding="utf-8")
    before, own, after = text.partition(f'kbo = "{_OWN}"')
    assert own, "the example has an institution of the router's own"
    new = ", ".join(f'"{_kbo(n)}"' for n in range(INSTITUTIONS))
    after = after.replace("members = [", f"members = [{new}, ", 1)
    file.write_text(before + own + after, encoding="utf-8")


def _kbo(number: int) -> str:
    body = 9_980_000 + number
    return f"{body:08}{97 - body % 97:02}"


def _role(number: int) -> str:
    return tuple(_ROLES)[number % len(_ROLES)]


def _service(number: int) -> str:
    return f"Large{number:03}"


def _institutions() -> Iterator[str]:
    for n in range(INSTITUTIONS):
        kbo = _kbo(n)
        yield (
            f'[[institution]]\nkbo = "{kbo}"\nname = "Synthetic {n}"\n'
            f'uris = ["urn:kbo:{kbo}"]\nroles = ["{_role(n)}"]\n'
        )


def _services() -> Iterator[str]:
    for n in range(SERVICES):
        yield (
            f'[[service]]\nname = "{_service(n)}"\nversion = 1\nkind = "consultation"\n'
            'subject = "person"\nfollow_replaced = true\n'
        )


def _availability() -> Iterator[str]:
    for n in range(SERVICES):
        yield (
            f'[[availability]]\nservice = "{_service(n)}"\nversion = 1\nkbo = "{_SOURCE}"\n'
            f'role = "{_SOURCE_ROLE}"\ncapacities = [1, 2]\n'
        )


def _rights() -> Iterator[str]:
    for n in range(INSTITUTIONS):
        for user in range(_USERS):
            key = f"{n * _USERS + user:032x}"
            yield f'[[right]]\nkbo = "{_kbo(n)}"\nuser_key = "{key}"\nroles = ["{_role(n)}"]\n'


def _grants(count: int) -> Iterator[str]:
    """By role for each service, then by institution until there are enough."""
    for n in range(count):
        service = _service(n % SERVICES)
        head = (
            f'[[grant]]\nid = "large-{n}"\ndirection = "request"\n'
            f'service = "{service}"\nversion = 1\n'
        )
        at = n // SERVICES
        role = _role(at)
        capacities = f"capacities = {list(_ROLES[role])}\n"
        if at < len(_ROLES):
            yield f'{head}role = "{role}"\n{capacities}'
            continue
        # Every service at 500 institutions, each time others.
        holder = (at - len(_ROLES)) * SERVICES + n % SERVICES
        kbo = _kbo(holder % INSTITUTIONS)
        capacities = f"capacities = {list(_ROLES[_role(holder % INSTITUTIONS)])}\n"
        yield (
            f'{head}kbo = "{kbo}"\nframework = "LARGE:{holder // INSTITUTIONS}"\n'
            f"own_integration = true\n{capacities}"
        )
