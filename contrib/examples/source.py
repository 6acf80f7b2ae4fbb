r"""Serve as a source: the router dials us, and delivers what it has checked and recorded.

    python contrib/examples/source.py --certificate own.crt --key own.key \
        --authorities authorities.pem --port 7801 --router-uri urn:example:router

SIGTERM drains: nothing new is taken, what is in flight is answered, then the program ends.
"""

import argparse
import json
import signal
from pathlib import Path

import trio

from ksz_router.sdk import Asked, Delivery, Identity, Outcome, Provider, Supply


async def unemployment(delivery: Delivery) -> Supply:
    """Answer for the person of the delivery, in its period, within its groups; for nobody else."""
    assert delivery.person is not None, "the service is about a person"
    periods = await find_periods(delivery.person, delivery.begin, delivery.end)
    if not periods:
        return Supply(Outcome.NO_DATA)
    return Supply(Outcome.DATA, payload=json.dumps({"periods": periods}).encode())


async def decision(delivery: Delivery) -> Supply:
    """Take a submission. ``exchange`` names it for good: act on it once, reply the same again."""
    if delivery.repeat and delivery.exchange in taken:  # we have it; our reply was lost
        return taken[delivery.exchange]
    supply = Supply(Outcome.DATA, source_code="TAKEN")
    taken[delivery.exchange] = supply  # together with what the decision changes, or not at all
    return supply


async def knows(question: Asked) -> bool:
    """Say whether our directory knows the person as is asked: yes or no, and nothing more."""
    held = await find_periods(question.person, question.begin, question.end)
    return bool(held) and question.sought.institution in our_network


async def find_periods(person: str, begin: int, end: int | None) -> list[list[int | None]]:
    """Ask your own database here; days are ``yyyymmdd``, an end of None is open."""
    await trio.lowlevel.checkpoint()
    return [[begin, end]] if person else []


our_network = {"0999019232"}  # the institutions whose persons our directory holds

taken: dict[bytes, Supply] = {}  # in earnest: in your database, in the transaction of the change


async def drain_on_sigterm(provider: Provider) -> None:
    """Take nothing new once we are told to stop; ``serve`` returns when all is answered."""
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            provider.drain()
            return


async def serve(identity: Identity, *, port: int, router_uri: str) -> None:
    provider = Provider(
        identity,
        router_uris={router_uri},
        services={("UnemploymentData", 3): unemployment, ("A036", 1): decision},
        sectoral=knows,  # only who keeps the directory of a secondary network
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain_on_sigterm, provider)
        print(f"serving on port {port}", flush=True)
        await provider.serve(host="127.0.0.1", port=port)
        print("drained", flush=True)
        nursery.cancel_scope.cancel()


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

    async def start() -> None:
        await serve(identity, port=options.port, router_uri=options.router_uri)

    trio.run(start)


if __name__ == "__main__":
    main()
