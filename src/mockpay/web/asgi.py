"""What the layers around the application share: reading a request's headers, adding to its answer's."""

from collections.abc import Iterable, Mapping

from litestar.types import Message, Scope, Send


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
