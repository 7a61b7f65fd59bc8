"""The protocol, which also hands out the connection: only so can an answer be cut off, or reset."""

import asyncio
import socket
import struct
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from litestar.types import Scope

from mockpay.errors import ApiError
from mockpay.web.connection import LimitedProtocol

_EXTENSION: Final = "mockpay.connection"
_LINGER_NOT_AT_ALL: Final = struct.pack("ii", 1, 0)


class Corked:
    """A transport that writes once in a turn of the loop: an answer's head and body are one call to the system."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self.is_closing = transport.is_closing  # asked at each request

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        self._held.clear()
        self._transport.abort()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        if self._held:
            data = b"".join(self._held)
            self._held.clear()
            if not self.is_closing():  # it may have ended since it was written, and uvloop's raises then
                self._transport.write(data)


class TellingProtocol(LimitedProtocol):
    is_held = False
    """Whether its request is to get no answer, however long it waits."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(Corked(transport, self.loop))  # type: ignore[arg-type]  # it acts like one

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: dict[str, Any] = {_EXTENSION: {"protocol": self}}
        self.scope["extensions"] = extensions

    def answer(self, error: ApiError) -> None:
        if not self.is_held:
            super().answer(error)

    def give_way(self) -> None:
        """Resets it, as at the end of the time for which it may be held."""
        if self.is_held:
            reset(self.transport)
        else:
            super().give_way()

    def shutdown(self) -> None:
        """The server ends, and waits for what is under way; but not for what would wait for ever."""
        super().shutdown()
        if self.is_held:
            reset(self.transport)


def transport_of(scope: Scope) -> asyncio.Transport:
    """Of the connection that the request came by."""
    transport: asyncio.Transport = _protocol_of(scope).transport  # uvloop's is none by its type, but acts like one
    return transport


def hold(scope: Scope) -> None:
    """This request gets no answer. Its connection ends with the server at the latest."""
    _protocol_of(scope).is_held = True


def held(scope: Scope) -> AbstractContextManager[None]:
    """While the request waits, its connection makes room for new ones. Does nothing where there is no connection."""
    return _protocol_of(scope).held() if _has_protocol(scope) else nullcontext()


def is_gone(scope: Scope) -> bool:
    """Whether the client has closed the connection, so that no answer can reach it. False where it can't be known."""
    return _has_protocol(scope) and transport_of(scope).is_closing()


def reset(transport: asyncio.Transport) -> None:
    """End the connection with a RST, and not in order: the other side sees an error, whatever it was reading."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT_AT_ALL)
    transport.abort()


def _has_protocol(scope: Scope) -> bool:
    return _EXTENSION in (scope.get("extensions") or {})


def _protocol_of(scope: Scope) -> TellingProtocol:
    extension: Any = (scope.get("extensions") or {})[_EXTENSION]
    protocol: TellingProtocol = extension["protocol"]
    return protocol
