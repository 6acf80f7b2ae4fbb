"""``python -m ksz_router`` is ``ksz-router``."""

import sys

from ksz_router.cli import main

if __name__ == "__main__":
    sys.exit(main())
