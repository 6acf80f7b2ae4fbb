r"""Keep the lines of an institution in the person directory: inscribe everyone from a day on.

    python contrib/examples/keeper.py --certificate own.crt --key own.key \
        --authorities authorities.pem --port 7443 --router-uri urn:example:router \
        --day 20260301 < numbers

Standard input: the user's INSZ on the first line, then persons, one a line. None is printed.
"""

import argparse
import sys
from pathlib import Path

import trio

from ksz_router.codes import Code
from ksz_router.sdk import Client, Identity, Request, directory, new_ticket, open_client


async def file_opened(client: Client, envelope: Request, person: str, day: int) -> int:
    """Inscribe a person from a day on; return the version of the directory that has it."""
    answer = await client.ask(directory.inscribe(envelope, person, begin=day, phase=1))
    told = directory.told_of(answer)
    if told is None or told.reason:
        raise LookupError(told.why if told is not None else Code(answer.code).name)
    return told.version


def envelope(user: str) -> Request:
    """Who asks: sector 17, type 1, in capacity 2; the service and the person are put in."""
    return Request(
        id=0, service="", version=0, ticket=new_ticket(), user=user, sector=17, type=1, capacity=2
    )


async def run(
    identity: Identity, *, port: int, uri: str, user: str, persons: list[str], day: int
) -> None:
    """Inscribe one after the other, and say what came of it."""
    async with open_client(identity, host="127.0.0.1", port=port, uri=uri) as client:
        for number, person in enumerate(persons, 1):
            try:
                version = await file_opened(client, envelope(user), person, day)
                print(f"person {number}: inscribed, version {version}")
            except LookupError as error:
                print(f"person {number}: {error}")


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--certificate", "--key", "--authorities"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--router-uri", required=True)
    parser.add_argument("--day", type=int, required=True)
    options = parser.parse_args()
    identity = Identity(
        certificate=options.certificate, key=options.key, authorities=options.authorities
    )
    user, *persons = sys.stdin.read().split()

    async def start() -> None:
        await run(
            identity, port=options.port, uri=options.router_uri, user=user, persons=persons,
            day=options.day,
        )  # fmt: skip

    trio.run(start)


if __name__ == "__main__":
    main()
