"""``ksz-router run``: the router itself."""

import argparse
import os
import sys
from pathlib import Path

import trio

from ksz_router import config
from ksz_router.cli import BAD_CONFIG, NOT_IN_ORDER, OK, add_config
from ksz_router.config import Config
from ksz_router.daemon import admin, oplog
from ksz_router.daemon.control import stop_seconds
from ksz_router.daemon.supervisor import Supervisor
from ksz_router.ledger import LedgerError
from ksz_router.privacylog import PrivacyLogError
from ksz_router.rulebook.generation import RulebookError


def add(parser: argparse.ArgumentParser) -> None:
    """Declare arguments and examples."""
    add_config(parser)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = """\
Runs in the foreground and logs JSON lines to standard error. SIGTERM drains and stops; SIGHUP
reads the active rulebook, certificates, revocations and configuration anew.

examples:
  ksz-router run --config /etc/ksz-router/router.toml
"""


def run(arguments: argparse.Namespace) -> int:
    """Run until told to stop."""
    settings = config.load(arguments.config)
    supervisor = Supervisor(settings, arguments.config.absolute(), oplog.set_up("supervisor"))
    try:
        return trio.run(_serve, supervisor, settings)
    except (RulebookError, PrivacyLogError, LedgerError) as error:
        print(f"ksz-router: {error}", file=sys.stderr)
        return BAD_CONFIG
    except OSError as error:
        print(f"ksz-router: {error}", file=sys.stderr)
        return NOT_IN_ORDER


async def _serve(supervisor: Supervisor, settings: Config) -> int:
    await supervisor.prepare()
    admin_path = Path(settings.admin.socket)
    admin_socket = await admin.listen_in_turn(admin_path, stop_seconds(settings))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(admin.serve, supervisor, admin_socket)
        was_told = await supervisor.run()
        os.unlink(admin_path)  # noqa: PTH108  before it is closed: the next router takes its place
        nursery.cancel_scope.cancel()
    if not was_told:
        log = settings.privacy_log.path
        print(f"ksz-router: {log}: another router writes it, and does not end", file=sys.stderr)
    return OK if was_told else NOT_IN_ORDER
