"""What a worker shows of how it is at this moment."""

from typing import TYPE_CHECKING

from ksz_router.daemon.metrics import Gauges

if TYPE_CHECKING:
    from ksz_router.daemon.worker import Worker


def gauges_of(worker: "Worker") -> Gauges:
    """Name, text and reader of each gauge; read from the thread that serves metrics."""
    tables, contexts, journal = worker.tables, worker.contexts, worker.journal
    return {
        "connections": ("Connections, sources included.", lambda: len(worker.loop.peers)),
        "pending_connections": (
            "Connections whose handshake is not over.",
            lambda: worker.server.gate.pending,
        ),
        "inflight_messages": ("Exchanges open.", lambda: worker.admission.inflight),
        "held_bytes": ("Bytes of messages that are held.", lambda: worker.admission.all_bytes),
        "clock_offset_seconds": (
            "How far the host's clock is ahead of the time that the worker goes by.",
            lambda: worker.keeping.clock.offset_s,
        ),
        "privacy_log_free_share": (
            "Share of the log's disk that is free; below 0.1 nothing is taken.",
            journal.free_share,
        ),
        "ledger_tickets": (
            "Submissions that the ledger remembers.",
            lambda: journal.tickets,
        ),
        "directory_version": ("Person directory in force.", lambda: tables.directory.version),
        "directory_numbers": ("Numbers it knows.", lambda: tables.directory.numbers_count),
        "rulebook_loaded_timestamp_seconds": (
            "When the rulebook in force was loaded.",
            lambda: tables.loaded_unix_s,
        ),
        **contexts.gauges(),
    }
