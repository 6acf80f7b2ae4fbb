"""What the verbs of the audit side say where its packages are not installed."""

from collections.abc import Iterator
from contextlib import contextmanager

from ksz_router.privacylog import PrivacyLogError

_PACKAGES = {"duckdb", "numpy", "pyarrow", "tqdm", "matplotlib", "jinja2"}


class AuditNotInstalled(PrivacyLogError):
    """A package of the extra ``audit`` is missing."""


@contextmanager
def needs_audit() -> Iterator[None]:
    """Import what belongs to the audit side within this.

    Raises:
        AuditNotInstalled: a package of it is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _PACKAGES:
            raise
        raise AuditNotInstalled(
            f"{error.name} is not installed: install ksz-router[audit] on this machine"
        ) from None
