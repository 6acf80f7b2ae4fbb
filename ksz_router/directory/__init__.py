"""The person directory: which roles know which person, in which capacity, phase and period.

``docs/directory-format.md`` is the specification of what lies on disk.
"""

from ksz_router.directory.packing import DamagedError, DirectoryError
from ksz_router.directory.snapshot import Directory

__all__ = ["DamagedError", "Directory", "DirectoryError"]
