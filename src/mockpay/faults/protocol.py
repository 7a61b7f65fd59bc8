"""Uvicorn's protocol, which also hands out the connection: only so can an answer be cut off, or reset."""

import asyncio
import socket
import struct
from typing import Any, Final

from litestar.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_EXTENSION: Final = "mockpay.transport"
_LINGER_NOT_AT_ALL: Final = struct.pack("ii", 1, 0)


class TellingProtocol(HttpToolsProtocol):
    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: dict[str, Any] = {_EXTENSION: {"transport": self.transport}}
        self.scope["extensions"] = extensions


def transport_of(scope: Scope) -> asyncio.Transport:
    """Of the connection that the request came by."""
    extension: Any = (scope.get("extensions") or {})[_EXTENSION]
    transport: asyncio.Transport = extension["transport"]  # uvloop's is none by its type, but acts like one
    return transport


def reset(transport: asyncio.Transport) -> None:
    """End the connection with a RST, and not in order: the other side sees an error, whatever it was reading."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT_AT_ALL)
    transport.abort()
