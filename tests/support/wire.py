"""A receiver of webhooks with nothing between the test and the socket: what arrived, byte by byte, and when."""

import socketserver
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from tests.support.processes import wait_until


@dataclass
class Arrived:
    """`times` are those of the pieces of the body."""

    head: str
    body: bytes
    headers: dict[str, str]
    started: float
    times: list[float] = field(default_factory=list)


class Wire:
    """Answers each request with the next of `answers`, or with what `decide` says, and 200 otherwise."""

    def __init__(self) -> None:
        self.arrived: list[Arrived] = []
        self.answers: list[int] = []
        self.decide: Any = None
        wire = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                request = _read(self.request)
                wire.arrived.append(request)
                status = wire.answers.pop(0) if wire.answers else wire.decide(request) if wire.decide else 200
                self.request.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 100

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/webhooks"

    def wait_for(self, count: int) -> list[Arrived]:
        wait_until(lambda: len(self.arrived) >= count, 20)
        return self.arrived

    def forget(self) -> None:
        self.arrived.clear()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _read(connection: Any) -> Arrived:
    started = time.monotonic()
    raw = b""
    while b"\r\n\r\n" not in raw:
        raw += connection.recv(65_536)
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
    times = [time.monotonic()]
    while len(body) < int(headers["content-length"]):
        piece = connection.recv(65_536)
        if not piece:
            break
        body += piece
        times.append(time.monotonic())
    return Arrived(lines[0], body, headers, started, times)
