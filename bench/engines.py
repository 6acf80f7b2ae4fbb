"""The rules of ``ruleset`` for Cedar and for Casbin.

They judge what they can judge well, in the form that is quickest for them: policies and entities
parsed beforehand, 64 questions at once where that is offered, an index by role, service and
capacity. They keep no persons, so they are handed what our directory says of one, looked up and
put into their form beforehand: a line for each capacity, the one that holds the day if any does.
That is not in their time. It is in ours.
"""

import importlib
import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from bench.ruleset import GRANTS, REQUESTERS, SERVICES, TODAY, USERS
from ksz_router.messages import Request
from ksz_router.model import ANY_TYPE, Day, NumberStatus
from ksz_router.persons import Person

Question = tuple[str, Request, Person | None]
"""KBO number of who asks, what, and what the directory says of the person."""


def _lines_of(person: Person | None, day: Day) -> dict[str, tuple[Day, Day]]:
    found: dict[str, tuple[Day, Day]] = {}
    for line in person.lines if person is not None else ():
        kind = "*" if line.type == ANY_TYPE else line.type
        key = f"{line.sector}/{kind}/{line.capacity}"
        if key not in found or line.begin <= day <= line.end:
            found[key] = (line.begin, line.end)
    return found


def _keys(sector: int, kind: int, capacities: Sequence[int]) -> list[str]:
    return [f"{sector}/{one}/{code}" for code in capacities for one in (kind, "*")]


def _is_gone(person: Person | None) -> bool:
    return person is None or person.current_status is NumberStatus.CANCELLED


class Cedar:
    """cedarpy: policies and entities as handles, the questions 64 at once."""

    batch = 64

    def __init__(self) -> None:
        self._cedar: Any = importlib.import_module("cedarpy")
        self._policies = self._cedar.PolicySet.from_str("\n".join(self._written()))
        self._entities = self._cedar.Entities.from_json_str(json.dumps(list(self._graph())))

    def _written(self) -> Iterator[str]:
        for asks, service, end in GRANTS:
            known = _cedar_known(_keys(asks.sector, asks.type, (asks.capacity,)))
            yield (
                f'permit(principal in Role::"{asks.role}", action == Action::"ask", '
                f'resource == Service::"{service}") when {{ context.role == "{asks.role}" && '
                f"context.capacity == {asks.capacity} && context.today <= {end} && ({known}) }};"
            )
        for service, source in SERVICES.items():
            known = _cedar_known(_keys(source.sector, source.type, source.capacities))
            yield (
                f'forbid(principal, action, resource == Service::"{service}") unless {{ {known} }};'
            )
        yield (
            "forbid(principal, action, resource) unless { principal.services.contains(resource) && "
            "context.level >= principal.level && context.today <= principal.end };"
        )
        yield "forbid(principal, action, resource) when { context.gone };"

    def _graph(self) -> Iterator[dict[str, Any]]:
        for requester in REQUESTERS:
            role = {"type": "Role", "id": requester.role}
            institution = {"type": "Institution", "id": requester.kbo}
            yield {"uid": role, "attrs": {}, "parents": []}
            yield {"uid": institution, "attrs": {}, "parents": [role]}
        for (kbo, insz), (_, right) in USERS.items():
            allowed = [{"type": "Service", "id": name} for name in right.services or SERVICES]
            yield {
                "uid": {"type": "User", "id": f"{kbo}/{insz}"},
                "attrs": {
                    "services": [{"__entity": one} for one in allowed],
                    "level": right.level,
                    "end": right.end,
                },
                "parents": [{"type": "Institution", "id": kbo}],
            }

    def prepare(self, question: Question) -> Any:
        """Put a question into its form; not timed."""
        kbo, asked, person = question
        day = asked.begin or TODAY
        context = {
            "role": f"{asked.sector}/{asked.type}",
            "capacity": asked.capacity,
            "level": asked.level,
            "today": TODAY,
            "day": day,
            "gone": _is_gone(person),
            "lines": {
                key: {"begin": begin, "end": end}
                for key, (begin, end) in _lines_of(person, day).items()
            },
        }
        return {
            "principal": f'User::"{kbo}/{asked.user}"',
            "action": 'Action::"ask"',
            "resource": f'Service::"{asked.service}"',
            "context": json.dumps(context),
        }

    def judge(self, questions: Sequence[Any]) -> list[bool]:
        """Judge up to ``batch`` prepared questions."""
        found = self._cedar.is_authorized_batch(questions, self._policies, self._entities)
        return [one.allowed for one in found]


def _cedar_known(keys: list[str]) -> str:
    return " || ".join(
        f'(context.lines has "{key}" && context.lines["{key}"].begin <= context.day && '
        f'context.day <= context.lines["{key}"].end)'
        for key in keys
    )


_CASBIN_MODEL = """
[request_definition]
r = role, service, capacity, kbo, user, level, today, day, person
[policy_definition]
p = role, service, capacity, end
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.role == p.role && r.service == p.service && r.capacity == p.capacity && r.today <= p.end && \
may(r.kbo, r.user, r.role, r.service, r.level, r.today) && knows(r.person, r.role, r.capacity, \
r.day) && supplies(r.service, r.person, r.day)
"""


class Casbin:
    """pycasbin's ``FastEnforcer``: its policies by role, service and capacity."""

    batch = 1

    def __init__(self) -> None:
        casbin: Any = importlib.import_module("casbin")
        logging.getLogger("casbin").setLevel(logging.CRITICAL)  # else a line for each refusal
        model = importlib.import_module("casbin.model").FastModel([0, 1, 2])
        model.load_model_from_text(_CASBIN_MODEL)
        self._enforcer = casbin.FastEnforcer(model, cache_key_order=[0, 1, 2])
        for asks, service, end in GRANTS:
            self._enforcer.add_policy(asks.role, service, str(asks.capacity), str(end))
        for function in (_may, _knows, _supplies):
            self._enforcer.add_function(function.__name__[1:], function)

    def prepare(self, question: Question) -> Any:
        """Put a question into its form; not timed."""
        kbo, asked, person = question
        day = asked.begin or TODAY
        lines = {} if _is_gone(person) else _lines_of(person, day)
        role = f"{asked.sector}/{asked.type}"
        head = (role, asked.service, str(asked.capacity), kbo, asked.user)
        return (*head, asked.level, str(TODAY), day, lines)

    def judge(self, questions: Sequence[Any]) -> list[bool]:
        """Judge prepared questions, one after the other."""
        return [self._enforcer.enforce(*one) for one in questions]


def _may(  # noqa: PLR0917  Casbin passes by place
    kbo: str, user: str, role: str, service: str, level: int, today: str
) -> bool:
    found = USERS.get((kbo, user))
    if found is None:
        return False
    requester, right = found
    return (
        requester.role == role
        and (not right.services or service in right.services)
        and level >= right.level
        and int(today) <= right.end
    )


def _knows(lines: dict[str, tuple[Day, Day]], role: str, capacity: str, day: Day) -> bool:
    sector = role.partition("/")[0]
    return _is_known(lines, (f"{role}/{capacity}", f"{sector}/*/{capacity}"), day)


_SOURCE_KEYS = {
    name: _keys(source.sector, source.type, source.capacities) for name, source in SERVICES.items()
}


def _supplies(service: str, lines: dict[str, tuple[Day, Day]], day: Day) -> bool:
    return _is_known(lines, _SOURCE_KEYS[service], day)


def _is_known(lines: dict[str, tuple[Day, Day]], keys: Sequence[str], day: Day) -> bool:
    for key in keys:
        line = lines.get(key)
        if line is not None and line[0] <= day <= line[1]:
            return True
    return False
