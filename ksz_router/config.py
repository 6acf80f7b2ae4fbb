"""The configuration of a router: TOML into frozen structs, unknown keys refused.

The structs below are the reference; ``config/router.toml`` explains each field and is tested to
equal these defaults. Secrets are paths, never values. A relative path counts from the folder of
the configuration file; ``$CREDENTIALS_DIRECTORY`` at its head is replaced by that variable.
"""

import os
import tomllib
from pathlib import Path

import msgspec

from ksz_router import limits
from ksz_router.ranges import RANGES


class ConfigError(Exception):
    """The configuration cannot be used. The message names the file, the key and the mend."""


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who this router is."""

    name: str = "router-a"
    workers: int = 2


class Listen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where institutions connect. A socket handed over by systemd wins over these."""

    host: str = "127.0.0.1"
    port: int = 7443
    backlog: int = 4096


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The router's own certificate, used to listen and to dial, and whom it trusts."""

    certificate: str = "tls/router.crt"
    key: str = "tls/router.key"
    authorities: str = "tls/authorities.pem"
    revocations: str = ""
    revocations_grace_hours: float = 24.0


class Tables(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the tables are."""

    rulebook: str = "/var/lib/ksz-router/rulebook"
    rulebook_signer: str = "keys/rulebook-signer.pub"
    directory: str = "/var/lib/ksz-router/directory"
    sectoral: str = "/var/lib/ksz-router/sectoral"


class PrivacyLog(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the privacy log and its key files are."""

    path: str = "/var/lib/ksz-router/privacylog"
    keys: str = "keys/privacylog"
    file_bytes: int = limits.log_file_bytes


class Archive(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sealed privacy log: its tree, its signed checkpoints, its Parquet files."""

    path: str = "/var/lib/ksz-router/archive"
    last_checkpoint: str = "/var/lib/ksz-router/last-checkpoint"
    keys: str = "keys/checkpoint"
    origin: str = "ksz-router.example/router-a"
    sealing: bool = True
    keep_days: float = 7.0


class Directory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The directory program: a source, with the certificate of the router's own institution."""

    serving: bool = False
    host: str = "127.0.0.1"
    port: int = 7810
    certificate: str = "tls/directory.crt"
    key: str = "tls/directory.key"
    keep_days: int = 35
    journal_rows_max: int = 100_000_000
    mailboxes: str = "/var/lib/ksz-router/mailboxes"


class Notices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the directory program tells institutions what became of a number: through the router."""

    host: str = "127.0.0.1"
    port: int = 0
    application: str = ""
    legal_framework: str = ""
    give_up_hours: float = 168.0


class Ledger(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The submissions of the last hours, so that none is delivered twice."""

    path: str = "/run/ksz-router/ledger"
    window_hours: float = 24.0
    tickets_max: int = 4_000_000


class Metrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Worker n, from 0 on, serves ``/metrics`` on ``port + n``, then each program; none with 0."""

    host: str = "127.0.0.1"
    port: int = 9464


class Admin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The Unix socket that ``ksz-router status`` talks to; its file mode is the authorisation."""

    socket: str = "/run/ksz-router/admin.sock"


class Connections(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many may connect, and how fast, per worker."""

    per_institution: int = limits.connections_per_institution_max
    pending_per_address: int = limits.pending_per_address_max
    handshakes_per_second: float = limits.handshakes_per_second_max
    handshakes_per_second_per_address: float = limits.handshakes_per_second_per_address_max


class Windows(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Requests in flight at once, per worker, and the bytes that they and answers may hold."""

    connection: int = limits.connection_inflight_default
    institution: int = limits.institution_inflight_max
    router: int = limits.router_inflight_max
    source: int = limits.source_inflight_max
    bytes: int = limits.held_bytes_default


class Sources(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How each worker treats a source."""

    connections_per_endpoint: int = 1
    connect_seconds: float = 3.0
    breaker_failures: int = 5
    breaker_failed_share: float = 0.5
    breaker_open_seconds: float = 10.0


class Stop(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long a stopping worker lets open exchanges end."""

    drain_seconds: float = limits.drain_seconds_max


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything an operator sets."""

    node: Node = Node()
    listen: Listen = Listen()
    tls: Tls = Tls()
    tables: Tables = Tables()
    privacy_log: PrivacyLog = PrivacyLog()
    archive: Archive = Archive()
    directory: Directory = Directory()
    notices: Notices = Notices()
    ledger: Ledger = Ledger()
    metrics: Metrics = Metrics()
    admin: Admin = Admin()
    connections: Connections = Connections()
    windows: Windows = Windows()
    sources: Sources = Sources()
    stop: Stop = Stop()


LIVE: dict[str, tuple[str, ...]] = {
    "windows": Windows.__struct_fields__,
    "sources": Sources.__struct_fields__,
    "stop": ("drain_seconds",),
}
"""What a reload changes in a running router; every other key needs a restart."""

_PATHS = {
    "tls": ("certificate", "key", "authorities", "revocations"),
    "tables": ("rulebook", "rulebook_signer", "directory", "sectoral"),
    "privacy_log": ("path", "keys"),
    "archive": ("path", "last_checkpoint", "keys"),
    "directory": ("certificate", "key", "mailboxes"),
    "ledger": ("path",),
    "admin": ("socket",),
}


def load(file: Path) -> Config:
    """Read and check a configuration file; paths in the result are absolute.

    Raises:
        ConfigError: the file is missing, is no TOML, or has a key or value that cannot be used.
    """
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # a number or a nesting beyond all bounds, too
        raise ConfigError(f"{file}: is not TOML: {error}") from error
    try:
        config = msgspec.convert(table, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{file}: {error}") from error
    _check_ranges(config, file)
    config = _with_absolute_paths(config, file.absolute().parent)
    archive = config.archive
    if Path(os.path.normpath(archive.last_checkpoint)).is_relative_to(
        os.path.normpath(archive.path)
    ):
        raise ConfigError(
            f"{file}: archive.last_checkpoint = {archive.last_checkpoint}: must be outside of "
            "archive.path, so that no copy of the archive brings an older one back"
        )
    return config


def merge(running: Config, read: Config) -> tuple[Config, tuple[str, ...]]:
    """Say what a running router may take over of a file that was read anew.

    Returns:
        The running configuration with the ``LIVE`` keys as they were read; and the other keys that
        differ, such as ``listen.port``, which need a restart.
    """
    waiting = []
    sections = {}
    for section in Config.__struct_fields__:
        old, new = getattr(running, section), getattr(read, section)
        live = LIVE.get(section, ())
        changed = [f for f in old.__struct_fields__ if getattr(old, f) != getattr(new, f)]
        waiting += [f"{section}.{field}" for field in changed if field not in live]
        taken = {field: getattr(new, field) for field in changed if field in live}
        sections[section] = msgspec.structs.replace(old, **taken)
    return msgspec.structs.replace(running, **sections), tuple(waiting)


def _check_ranges(config: Config, file: Path) -> None:
    for section, fields in RANGES.items():
        for field, (least, most) in fields.items():
            value = getattr(getattr(config, section), field)
            if not least <= value <= most:
                raise ConfigError(
                    f"{file}: {section}.{field} = {value}: must be from {least} to {most}"
                )
    if config.directory.keep_days * 24 < config.ledger.window_hours:
        raise ConfigError(
            f"{file}: directory.keep_days: must last as long as ledger.window_hours at least, so "
            "that no change is made twice"
        )
    windows = config.windows
    if not windows.connection <= windows.institution <= windows.router:
        raise ConfigError(
            f"{file}: windows: connection <= institution <= router must hold, "
            f"got {windows.connection}, {windows.institution}, {windows.router}"
        )
    name = config.node.name
    if not (0 < len(name) <= 32 and name.isascii() and name.replace("-", "").isalnum()):
        raise ConfigError(f"{file}: node.name: 1 to 32 ASCII letters, digits and hyphens")


def _with_absolute_paths(config: Config, folder: Path) -> Config:
    sections = {}
    for section, fields in _PATHS.items():
        old = getattr(config, section)
        paths = {field: _absolute(getattr(old, field), folder) for field in fields}
        sections[section] = msgspec.structs.replace(old, **paths)
    return msgspec.structs.replace(config, **sections)


def _absolute(path: str, folder: Path) -> str:
    if not path:
        return ""
    head = "$CREDENTIALS_DIRECTORY"
    if path.startswith(head):
        path = os.environ.get("CREDENTIALS_DIRECTORY", head) + path.removeprefix(head)
    return str(folder / path)
