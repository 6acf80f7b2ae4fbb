"""Reload: rulebook, certificates and configuration are read anew, each whole or not at all.

The three do not wait for each other: a revocation takes effect though the rulebook beside it is
refused. Each is checked here once, before any worker hears of it; what is refused changes nothing.
What passed is in force in every worker that serves when the reload is done: a worker that cannot
follow is dismissed, and its successor starts with what is in force.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
import trio

from ksz_router import config
from ksz_router.config import Config, ConfigError, Tls
from ksz_router.daemon.contexts import Contexts
from ksz_router.daemon.control import Adjust, Load, Order, Renew
from ksz_router.daemon.handle import WorkerHandle
from ksz_router.rulebook import activation
from ksz_router.rulebook.generation import RulebookError
from ksz_router.tls import TlsFilesError

_ORDERS_SECONDS_MAX = 10.0

T = TypeVar("T")


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload came to for one part."""

    outcome: Literal["changed", "unchanged", "refused"]
    reason: str = ""
    """Why it was refused, with the file; what was in force goes on."""
    needs_restart: tuple[str, ...] = ()
    """Keys of the configuration that differ, such as ``listen.port``, and were not applied."""
    replaced: dict[int, str] = {}
    """Workers that could not follow and are replaced, by index, and why."""


class InForce(msgspec.Struct):
    """What the router goes by; a worker that starts is given this."""

    settings: Config
    generation: str
    certificates: bytes
    """A digest of the files."""


def refusal(reason: str) -> dict[str, Part]:
    """The result of a reload that was not even tried."""
    part = Part(outcome="refused", reason=reason)
    return dict.fromkeys(("rulebook", "certificates", "configuration"), part)


def verified_generation(settings: Config) -> str:
    """Return the active generation, once its signature and its files are checked. Blocks.

    Raises:
        RulebookError: there is none that can be used.
    """
    store = Path(settings.tables.rulebook)
    name = activation.active(store)
    activation.verify(store, name, Path(settings.tables.rulebook_signer))
    return name


def digest_of(settings: Tls) -> bytes:
    """Return a digest of the certificate files; of one that cannot be read, that it cannot."""
    digest = hashlib.sha256()
    names = settings.certificate, settings.key, settings.authorities, settings.revocations
    for name in names:
        try:
            content = Path(name).read_bytes() if name else b""
        except OSError:
            content = b"?"
        digest.update(hashlib.sha256(content).digest())
    return digest.digest()


async def reload(
    force: InForce, file: Path, workers: Callable[[], Sequence[WorkerHandle]]
) -> dict[str, Part]:
    """Check each part, and put what passed in force.

    Args:
        force: Changed in place.
        file: The configuration.
        workers: Gives those that serve. One that is only starting was given what was in force at
            its start, and is compared with what is now as soon as it is ready.
    """
    generation = await _checked(lambda: verified_generation(force.settings))
    certificates = await _checked(lambda: _checked_certificates(force.settings.tls))
    read = await _checked(lambda: config.merge(force.settings, config.load(file)))

    # From here to the first order nothing gives way: a worker that becomes ready meanwhile is
    # either told or compared.
    parts: dict[str, Part] = {}
    orders: dict[str, Order] = {}
    if isinstance(generation, Part):
        parts["rulebook"] = generation
    else:
        parts["rulebook"] = _passed(is_changed=generation != force.generation)
        orders["rulebook"] = Load(generation)
        force.generation = generation
    if isinstance(certificates, Part):
        parts["certificates"] = certificates
    else:
        parts["certificates"] = _passed(is_changed=certificates != force.certificates)
        orders["certificates"] = Renew()
        force.certificates = certificates
    if isinstance(read, Part):
        parts["configuration"] = read
    else:
        settings, waiting = read
        part = _passed(is_changed=settings != force.settings)
        parts["configuration"] = msgspec.structs.replace(part, needs_restart=waiting)
        orders["configuration"] = Adjust(settings)
        force.settings = settings
    for name, replaced in (await _tell(orders, workers())).items():
        parts[name] = msgspec.structs.replace(parts[name], replaced=replaced)
    return parts


async def _checked(check: Callable[[], T]) -> T | Part:
    try:
        return await trio.to_thread.run_sync(check)
    except (ConfigError, RulebookError, TlsFilesError, OSError, ValueError) as error:
        return Part(outcome="refused", reason=str(error))


def _checked_certificates(settings: Tls) -> bytes:
    digest = digest_of(settings)
    Contexts(settings)
    return digest


def _passed(*, is_changed: bool) -> Part:
    return Part(outcome="changed" if is_changed else "unchanged")


async def _tell(
    orders: dict[str, Order], workers: Sequence[WorkerHandle]
) -> dict[str, dict[int, str]]:
    """Give every worker all orders; return who could not carry out which, and why.

    Such a worker is dismissed. One that does not answer in time is killed: it may not go on under
    a right that was taken away, and what is open in it is settled by its successor.
    """
    failed: dict[str, dict[int, str]] = {}

    async def tell(worker: WorkerHandle) -> None:
        process, name = worker.process, ""
        with trio.move_on_after(_ORDERS_SECONDS_MAX) as waiting:
            for name, order in orders.items():
                report = await worker.order(order)
                if not report.ok:
                    failed.setdefault(name, {})[worker.index] = report.text
                    await worker.dismiss()  # its successor reads everything anew
                    return
        if waiting.cancelled_caught:
            failed.setdefault(name, {})[worker.index] = "the worker did not answer in time"
            if process is not None:
                process.kill()

    async with trio.open_nursery() as nursery:
        for worker in workers:
            nursery.start_soon(tell, worker)
    return failed
