"""What the layers around the application share: reading ahead in a request, adding to its answer."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from litestar.types import HTTPResponseStartEvent, HTTPScope, Message, Receive, ReceiveMessage, Scope, Send
from litestar.utils.path import normalize_path

BODY_BYTES_MAX: Final = 256 * 1024
_HEADERS: Final = "headers_by_name"
_ADDED: Final = "headers_to_add"
_WATCHING: Final = "watching"
_PATH: Final = "normalized_path"

See = Callable[[Message], None]


def header_of(scope: Scope, name: bytes) -> str | None:
    """The first of this name, which is in lower case."""
    state = scope.setdefault("state", {})
    headers = state.get(_HEADERS)
    if headers is None:
        headers = state[_HEADERS] = dict([*scope["headers"]][::-1])
    value: bytes | None = headers.get(name)
    return None if value is None else value.decode("latin-1")


def body_length_of(scope: Scope) -> int | None:
    """What the request says of its body. None if it does not: there is no body, or it is sent in chunks."""
    length = header_of(scope, b"content-length")
    # The server has checked that it is a number, but Python takes none of thousands of digits, zeros in front included.
    return None if length is None else int(length.lstrip("0") or 0)


def raw_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def add_headers(scope: Scope, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """To the answer, whatever it will be."""
    scope["state"][_ADDED] += headers


def watch(scope: Scope, see: See) -> None:
    """Show `see` every message of the answer, before it is sent."""
    scope["state"][_WATCHING].append(see)


def unwatch(scope: Scope) -> None:
    """When it is over. Who watched knows the request: if it knew them too, only a search for cycles could free both."""
    scope["state"][_WATCHING].clear()


def path_of(scope: HTTPScope) -> str:
    """As the router reads it: "//api/payments/" is a payment's route too."""
    path: str | None = scope["state"].get(_PATH)
    if path is None:
        path = scope["state"][_PATH] = normalize_path(scope["path"])
    return path


def observed(scope: Scope, send: Send) -> Send:
    """`send` for the layers inside, which may `watch` what is sent and `add_headers` to it."""
    added: list[tuple[bytes, bytes]] = []
    watching: list[See] = []
    scope.setdefault("state", {}).update({_ADDED: added, _WATCHING: watching})

    async def send_observed(message: Message) -> None:
        for see in watching:
            see(message)
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *added]
        await send(message)

    return send_observed


async def send_whole(send: Send, start: HTTPResponseStartEvent, body: bytes) -> None:
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_json(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    """An answer of bytes that are encoded already."""
    all_headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    start: HTTPResponseStartEvent = {
        "type": "http.response.start",
        "status": status,
        "headers": raw_headers(all_headers),
    }
    await send_whole(send, start, body)


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
