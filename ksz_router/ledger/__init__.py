"""The submission ledger: a submission reaches its recipient once, however often it is retried."""

from ksz_router.ledger.book import Ledger, LedgerError
from ksz_router.ledger.recall import Recall
from ksz_router.ledger.row import NO_DIGEST, NOT_SENT, UNKNOWN, Claim, Earlier, Granted, Noted

__all__ = [
    "NOT_SENT", "NO_DIGEST", "UNKNOWN", "Claim", "Earlier", "Granted", "Ledger", "LedgerError",
    "Noted", "Recall",
]  # fmt: skip
