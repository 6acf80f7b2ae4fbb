"""What a number in the configuration may be: section, key, the least and the most."""

from ksz_router import limits

RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "node": {"workers": (1, 64)},
    "tls": {"revocations_grace_hours": (0, 720)},
    "listen": {"port": (0, 65_535), "backlog": (1, 65_535)},
    "metrics": {"port": (0, 65_000)},
    "privacy_log": {"file_bytes": (2 * limits.MIB, 1024 * limits.MIB)},
    "archive": {"keep_days": (0, 3660)},
    "directory": {
        "port": (1, 65_535),
        "keep_days": (1, 3660),
        "journal_rows_max": (1_000_000, 250_000_000),
    },
    "notices": {"port": (0, 65_535), "give_up_hours": (1, 8760)},
    "ledger": {"window_hours": (0.1, 720), "tickets_max": (1, 100_000_000)},
    "connections": {
        "per_institution": (1, limits.connections_per_worker_max),
        "pending_per_address": (1, limits.connections_per_worker_max),
        "handshakes_per_second": (1, 10_000),
        "handshakes_per_second_per_address": (1, 10_000),
    },
    "windows": {
        "connection": (1, limits.connection_inflight_max),
        "institution": (1, limits.institution_inflight_max),
        "router": (1, limits.router_inflight_max),
        "source": (1, limits.source_inflight_max),
        "bytes": (limits.MIB, limits.held_bytes_max),
    },
    "sources": {
        "connections_per_endpoint": (1, 16),
        "connect_seconds": (0.05, 60),
        "breaker_failures": (1, 1000),
        "breaker_failed_share": (0.05, 1),
        "breaker_open_seconds": (0.05, 3600),
    },
    "stop": {"drain_seconds": (0, 600)},
}
