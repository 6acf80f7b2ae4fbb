"""In the path of a router whose power is cut: its sealer does not wait for many leaves.

Between two cuts few come together, and it is in the midst of its steps that the power is to go off.
Python imports this by itself at the start of each process; only the sealer is changed by it.
"""

import sys

LEAVES_READY, LEAVES_MAX = 512, 4096

if "ksz_router.daemon.sealer_process" in sys.orig_argv:
    from ksz_router.privacylog.archive import seal

    vars(seal)["LEAVES_READY"] = LEAVES_READY
    seal.Sealer.__init__.__kwdefaults__ = {
        **(seal.Sealer.__init__.__kwdefaults__ or {}),
        "leaves_max": LEAVES_MAX,
    }
