"""Where the metrics are read: `/metrics`, and for whoever starts and stops the worker `/live` and `/ready`.

A small HTTP server in a thread of its own: it answers when the worker's event loop hangs, and says that it does.
"""

from __future__ import annotations

import socket
import threading
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from streams.faults import Unusable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Self
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from streams.metrics import Metrics

#: What can be asked for.
PAGES: Final = ("/metrics", "/live", "/ready")

#: Whoever does not send his request in this time is let go.
_REQUEST_WITHIN_S: Final = 10.0
#: How long `stop` may take.
_POLL_S: Final = 0.1


class MetricsServer:
    """Serves from `__enter__`, or `start`, until `stop`. Raises `Unusable` when the port cannot be had.

    `why_not_ready` says in a line why not, or None: the answer of `/ready`, and the metric `arrears_ready`, which
    thus cannot differ. Likewise `why_not_live`, for a worker that hangs. Both are called in the server's threads.
    """

    def __init__(
        self,
        metrics: Metrics,
        host: str,
        port: int,
        *,
        why_not_ready: Callable[[], str | None],
        why_not_live: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.host = host
        self._port = port
        self._why_not = {"/ready": why_not_ready, "/live": why_not_live}
        self._scrape: WSGIApplication = make_wsgi_app(metrics.registry)
        self._server: WSGIServer | None = None
        metrics.ready.set_function(lambda: why_not_ready() is None)

    @property
    def port(self) -> int:
        """The one it listens on: a free one if 0 was asked for."""
        return self._port if self._server is None else self._server.server_port

    def start(self) -> None:
        """Listen, in a thread of its own."""
        try:
            family = socket.getaddrinfo(self.host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        except OSError as error:
            reason = error.strerror or error
            raise Unusable(
                f"ARREARS_METRICS_HOST: {self.host} is no address of this machine ({reason}): take 127.0.0.1, or "
                "0.0.0.0 for all"
            ) from None
        try:
            self._server = make_server(
                self.host, self._port, self._answer, server_class=_SERVERS[family], handler_class=_Handler
            )
        except OSError as error:
            raise Unusable(
                f"ARREARS_METRICS_PORT: cannot listen on {self.host} port {self._port} ({error.strerror or error}): "
                "choose another port, or 0 for a free one"
            ) from None
        threading.Thread(target=self._server.serve_forever, args=(_POLL_S,), name="metrics", daemon=True).start()

    def stop(self) -> None:
        """Listen no more."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        page = environ["PATH_INFO"]
        if page not in PAGES:
            return _text(start_response, HTTPStatus.NOT_FOUND, f"There is {', '.join(PAGES)}.")
        if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            return _text(start_response, HTTPStatus.METHOD_NOT_ALLOWED, "Only GET.")
        if page == "/metrics":
            return self._scrape(environ, start_response)
        why_not = self._why_not[page]()
        if why_not is not None:
            return _text(start_response, HTTPStatus.SERVICE_UNAVAILABLE, why_not)
        return _text(start_response, HTTPStatus.OK, page.removeprefix("/"))


def _text(start_response: StartResponse, status: HTTPStatus, told: str) -> Iterable[bytes]:
    start_response(f"{status.value} {status.phrase}", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{told}\n".encode()]


class _Handler(WSGIRequestHandler):
    timeout = _REQUEST_WITHIN_S

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name there
        """Say nothing: a scrape every few seconds is no news."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """As there, without asking a name service who this machine is."""
        # HTTPServer.server_bind looks its own name up, which may take long where no name service answers.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class _ServerV6(_Server):
    address_family = socket.AF_INET6


_SERVERS: Final = {socket.AF_INET: _Server, socket.AF_INET6: _ServerV6}
