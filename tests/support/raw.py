"""A client that is nothing but a socket, for what no HTTP client would send."""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.processes import Gateway

TIMEOUT_SECONDS = 20


@contextmanager
def connected(gateway: Gateway, *, receive_bytes: int | None = None) -> Iterator[socket.socket]:
    """`receive_bytes` is what the system keeps of what nobody reads; otherwise it keeps megabytes."""
    url = gateway.client.base_url
    with socket.socket() as connection:
        if receive_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(TIMEOUT_SECONDS)
        connection.connect((url.host, url.port))
        yield connection


def until_closed(connection: socket.socket) -> bytes:
    """What comes until the server ends the connection, in order or not. Raises TimeoutError if it does not."""
    received = b""
    with suppress(ConnectionError):
        while data := connection.recv(65_536):
            received += data
    return received


def answer_to(gateway: Gateway, data: bytes) -> bytes:
    """All that comes, of a request after which the connection is closed."""
    with connected(gateway) as connection:
        with suppress(ConnectionError):  # it may be closed before all is sent
            connection.sendall(data)
        return until_closed(connection)


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([1-5][0-9]{2}) ", received)]
