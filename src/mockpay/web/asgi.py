"""What the layers around the application share: reading ahead in a request, adding to its answer."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

from litestar.types import Message, Receive, ReceiveMessage, Scope, Send

BODY_BYTES_MAX: Final = 256 * 1024


def header_of(scope: Scope, name: str) -> str | None:
    """The first of this name."""
    wanted = name.lower().encode()
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == wanted), None)


def raw_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def adding(send: Send, headers: Mapping[str, str]) -> Send:
    """`send`, which gives every answer these headers too."""
    added: Iterable[tuple[bytes, bytes]] = raw_headers(headers)

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *added]
        await send(message)

    return send_with_headers


async def read_ahead(receive: Receive) -> Receive:
    """Take the body in now, so that it is there later, should the client be gone then. Returns what hands it out.

    Of a body that is longer than allowed the rest is left to who refuses it.
    """
    taken: deque[ReceiveMessage] = deque()
    size = 0
    is_whole = False
    while not is_whole and size <= BODY_BYTES_MAX:
        message = await receive()
        taken.append(message)
        if message["type"] == "http.request":
            size += len(message["body"])
            is_whole = not message["more_body"]
        else:
            is_whole = True

    async def receive_again() -> ReceiveMessage:
        return taken.popleft() if taken else await receive()

    return receive_again
