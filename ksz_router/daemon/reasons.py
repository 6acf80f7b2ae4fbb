"""Why a worker is not ready: the fixed set that status, metrics and the runbook share."""

from enum import Enum, unique


@unique
class Reason(Enum):
    """Why a worker is not ready. The values are labels of a metric: a fixed set."""

    LOG_NOT_OPEN = "log_not_open"
    LOG_DISK_SHORT = "log_disk_short"
    LOG_FILE_SHORT = "log_file_short"
    LOG_NOT_SEQUENCED = "log_not_sequenced"
    KEYS_MISSING = "keys_missing"
    CLOCK_JUMPED = "clock_jumped"
    CERTIFICATE_ENDED = "certificate_ended"
    REVOCATIONS_ENDED = "revocations_ended"
    LOOP_STANDS = "loop_stands"
    DRAINING = "draining"
