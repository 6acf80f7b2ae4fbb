"""``ksz-router run``: the router itself."""

import argparse
import sys
from pathlib import Path

import trio

from ksz_router import config
from ksz_router.cli import BAD_CONFIG, NOT_IN_ORDER, add_config
from ksz_router.config import Config
from ksz_router.daemon import admin, oplog
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
verifies the active rulebook and reads it, certificates and revocations anew.

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
    admin_socket = admin.listen(admin_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(admin.serve, supervisor, admin_socket, admin_path)
        code = await supervisor.run()
        nursery.cancel_scope.cancel()
    return code
