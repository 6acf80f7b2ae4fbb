"""What a worker serves to operations over plain HTTP: ``/metrics`` and ``/ready``.

In threads of its own, so that a worker that is busy still says how it is. One descriptor is held
back for it: when the process has none left, that is what operations must be able to see.
"""

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import prometheus_client

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_REQUEST_SECONDS_MAX = 5.0
_TEXT = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")]


class _Handler(WSGIRequestHandler):
    timeout = _REQUEST_SECONDS_MAX

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing: a scrape is no event."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int]) -> None:
        self._lock = threading.Lock()
        self._reserve = -1
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)
        self._hold_back()

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            if not self._spend():
                time.sleep(0.05)  # the reserve is in use; without this the thread would spin
                raise
            return super().get_request()

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self._hold_back()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who hangs up in the middle is no event either."""

    def server_close(self) -> None:
        super().server_close()
        self._spend()

    def _hold_back(self) -> None:
        with self._lock:
            if self._reserve < 0:
                try:
                    self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
                except OSError:
                    self._reserve = -1

    def _spend(self) -> bool:
        with self._lock:
            if self._reserve < 0:
                return False
            os.close(self._reserve)
            self._reserve = -1
            return True


def serve(
    host: str,
    port: int,
    registry: prometheus_client.CollectorRegistry,
    reasons: Callable[[], Iterable[str]],
) -> None:
    """Serve in a thread until the process ends.

    Args:
        host: Address to listen on.
        port: TCP port number.
        registry: What ``/metrics`` shows.
        reasons: Why the worker is not ready: ``/ready`` answers 503 with one a line, or 200.

    Raises:
        OSError: the address cannot be listened on.
    """
    server = _Server((host, port))
    server.set_app(_application(registry, reasons))
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()


def _application(
    registry: prometheus_client.CollectorRegistry, reasons: Callable[[], Iterable[str]]
) -> "WSGIApplication":
    metrics = prometheus_client.make_wsgi_app(registry)

    def application(
        environment: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        path = environment.get("PATH_INFO", "")
        if path == "/ready":
            lines = list(reasons())
            start_response("503 Service Unavailable" if lines else "200 OK", list(_TEXT))
            return [("\n".join(lines or ["ready"]) + "\n").encode()]
        return cast("Iterable[bytes]", metrics(environment, start_response))

    return application
