r"""Ask a router, as an institution's back-end does: one, many, some together; and submit.

    python contrib/examples/requester.py --certificate own.crt --key own.key \
        --authorities authorities.pem --port 7443 --router-uri urn:example:router < numbers

Standard input: the user's INSZ on the first line, then persons, one a line. None is printed.
"""

import argparse
import sys
from pathlib import Path

import trio

from ksz_router.codes import Action, Code
from ksz_router.sdk import (
    Answer,
    Client,
    ConnectionLostError,
    Identity,
    NotAnsweredError,
    NotConnectedError,
    Request,
    SdkError,
    new_ticket,
    open_client,
)

IN_FLIGHT_MAX = 200


async def ask(client: Client, user: str, person: str) -> Answer:
    """Consult: sector 17, type 1 asks in capacity 2. Safe to send again, so it is."""
    request = Request(
        id=0,  # the client numbers requests itself
        service="UnemploymentData",
        version=3,
        ticket=new_ticket(),
        user=user,
        sector=17,
        type=1,
        capacity=2,
        person=person,
    )
    return await client.ask(request, deadline_s=12, resend=True)


def explain(answer: Answer) -> str:
    """Say what came of a request. A refusal is an answer, not an exception."""
    name = Code(answer.code).name
    match answer.action:
        case Action.NONE:
            return f"{name}, {len(answer.payload)} bytes"
        case Action.RETRY_AT:
            return f"{name}: send it again, with its ticket, at {answer.retry_at_ms}"
        case Action.SOURCE_DOWN:
            return f"{name}: not our fault; try later"
        case _:
            return f"{name}: trying again would not help"


async def ask_many(client: Client, user: str, persons: list[str]) -> list[str]:
    """Ask about many at once over the one connection; the results in the order of the persons."""
    results = [""] * len(persons)
    places = trio.CapacityLimiter(IN_FLIGHT_MAX)

    async def one(index: int) -> None:
        async with places:
            try:
                results[index] = explain(await ask(client, user, persons[index]))
            except SdkError as error:  # in here: what leaves a nursery is wrapped in a group
                results[index] = f"no answer: {error}"

    async with trio.open_nursery() as nursery:
        for index in range(len(persons)):
            nursery.start_soon(one, index)
    return results


async def ask_together(client: Client, user: str, persons: list[str]) -> list[str]:
    """Ask about a few in one envelope: one decision of one user, one answer for each."""
    ticket = new_ticket()  # shared, so that all of them are found by it
    requests = [
        Request(
            id=0,
            service="UnemploymentData",
            version=3,
            ticket=ticket,
            user=user,
            sector=17,
            type=1,
            capacity=2,
            person=person,
        )
        for person in persons
    ]
    results = await client.ask_together(requests, deadline_s=12, resend=True)
    return [explain(r) if isinstance(r, Answer) else f"no answer: {r}" for r in results]


async def submit(client: Client, user: str, person: str, ticket: str, decision: bytes) -> str:
    """Submit a decision, once. The ticket was stored with it before, so that it can be found."""
    request = Request(
        id=0,
        service="A036",
        version=1,
        ticket=ticket,
        user=user,
        sector=17,
        type=1,
        capacity=2,
        person=person,
        payload=decision,
    )
    try:
        return explain(await client.ask(request, deadline_s=12, resend=True))
    except NotConnectedError:
        return "was not sent: submit it again, with its ticket, when the router is back"
    except (NotAnsweredError, ConnectionLostError):
        return "was sent, and its outcome is not known: submit it again, with its ticket"


async def run(identity: Identity, *, port: int, uri: str, user: str, persons: list[str]) -> None:
    """Ask about everyone, submit a decision on the first, then ask about two at once."""
    async with open_client(identity, host="127.0.0.1", port=port, uri=uri) as client:
        for number, result in enumerate(await ask_many(client, user, persons), 1):
            print(f"person {number}: {result}")
        result = await submit(client, user, persons[0], new_ticket(), b"<decision/>")
        print(f"submission: {result}")
        for result in await ask_together(client, user, persons[:2]):
            print(f"together: {result}")


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--certificate", "--key", "--authorities"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--router-uri", required=True)
    options = parser.parse_args()
    identity = Identity(
        certificate=options.certificate, key=options.key, authorities=options.authorities
    )
    user, *persons = sys.stdin.read().split()

    async def start() -> None:
        await run(identity, port=options.port, uri=options.router_uri, user=user, persons=persons)

    trio.run(start)


if __name__ == "__main__":
    main()
