"""Receivers of webhooks that do with a connection what no HTTP server would, at the first of them; then they are well."""

import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

PAUSE_SECONDS = 0.02

Step = Callable[[socket.socket, threading.Event], None]
"""What is done next with the connection. The event is set when the test is over."""


def read(connection: socket.socket, _over: threading.Event) -> None:
    """The whole request. What is left unread would make a reset of every end."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65_536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65_536)


def says(data: bytes) -> Step:
    return lambda connection, _over: connection.sendall(data)


def drips(data: bytes) -> Step:
    """Each byte in good time, and all of them not."""

    def drip(connection: socket.socket, over: threading.Event) -> None:
        for byte in data:
            connection.sendall(bytes([byte]))
            over.wait(PAUSE_SECONDS)

    return drip


def repeats(piece: bytes, pause_seconds: float = 0.0) -> Step:
    """Until it is no longer listened to. The pause lets others have the processor, which is the test's own."""

    def repeat(connection: socket.socket, over: threading.Event) -> None:
        while not over.wait(pause_seconds):
            connection.sendall(piece)

    return repeat


def ends_its_half(connection: socket.socket, over: threading.Event) -> None:
    connection.shutdown(socket.SHUT_WR)
    over.wait()


def holds(_connection: socket.socket, over: threading.Event) -> None:
    over.wait()


def resets(connection: socket.socket, _over: threading.Event) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextmanager
def rude_receiver(steps: list[Step]) -> Iterator[int]:
    """Its port. The first connection gets the steps and is closed, the others get a 200."""
    over = threading.Event()
    first = iter([steps])

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                for step in next(first, [read, says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")]):
                    step(self.request, over)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            over.set()
            server.shutdown()
            thread.join()
