"""Does to a request and its answer what the client asked for. The operation itself knows nothing of it."""

import asyncio
from typing import Final, assert_never

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPResponseStartEvent, Message, Receive, Scope, Send

from mockpay.errors import ApiError, InvalidRequest
from mockpay.faults.model import HEADER, Effect, InjectedError, Injection, LostAs, RequestInProgress, parse
from mockpay.faults.protocol import reset, transport_of
from mockpay.tenants.gate import Caller
from mockpay.web.error_handler import error_body
from mockpay.web.request_log import request_id_of

HELD_SECONDS_MAX: Final = 600.0
"""A request that gets no answer is not held for ever."""
_HEADER: Final = HEADER.lower().encode()


class Faults:
    """Inside the gate: only a tenant, within its limit, may ask for faults, and each request for its own only."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = _asked_for(scope)
        if asked is None:
            await self._app(scope, receive, send)
            return
        try:
            injection = parse(asked)
        except InvalidRequest as error:
            await _answer(scope, send, error, error.status, error.code)
            return
        structlog.contextvars.bind_contextvars(fault=injection.effect.value)
        await self._inject(injection, scope, receive, _marked(send, injection))

    async def _inject(self, injection: Injection, scope: Scope, receive: Receive, send: Send) -> None:
        match injection.effect:
            case Effect.LATENCY:
                await asyncio.sleep(injection.seconds)
                await self._app(scope, receive, send)
            case Effect.TIMEOUT:
                await _hold(scope, receive)
            case Effect.RESET:
                await _reset(scope, receive)
            case Effect.ERROR:
                await _answer_chosen(injection, scope, send)
            case Effect.IN_PROGRESS:
                await _answer(scope, send, RequestInProgress(), RequestInProgress.status, RequestInProgress.code)
            case Effect.TRUNCATED:
                await self._truncate(scope, receive, send)
            case Effect.MALFORMED:
                start, body = await self._done(scope, receive)
                await _send_whole(send, start, body[:-1] + b"]" if body else b"{]")
            case Effect.LOST_RESPONSE:
                await self._done(scope, receive)
                await _lose(injection, scope, receive, send)
            case _:
                assert_never(injection.effect)

    async def _done(self, scope: Scope, receive: Receive) -> tuple[HTTPResponseStartEvent, bytes]:
        """Let the operation be done, and keep its answer back."""
        starts: list[HTTPResponseStartEvent] = []
        body = b""

        async def keep(message: Message) -> None:
            nonlocal body
            if message["type"] == "http.response.start":
                starts.append(message)
            elif message["type"] == "http.response.body":
                body += message["body"]

        await self._app(scope, receive, keep)
        return starts[0], body

    async def _truncate(self, scope: Scope, receive: Receive, send: Send) -> None:
        start, body = await self._done(scope, receive)
        await send(start)
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        transport_of(scope).close()  # in order: what was written still arrives
        await _until_disconnected(receive)


async def _lose(injection: Injection, scope: Scope, receive: Receive, send: Send) -> None:
    match injection.lost_as:
        case LostAs.RESET:
            await _reset(scope, receive)
        case LostAs.TIMEOUT:
            await _hold(scope, receive)
        case LostAs.ERROR:
            await _answer_chosen(injection, scope, send)
        case _:
            assert_never(injection.lost_as)


async def _reset(scope: Scope, receive: Receive) -> None:
    reset(transport_of(scope))
    await _until_disconnected(receive)


async def _hold(scope: Scope, receive: Receive) -> None:
    """Until the client gives up."""
    try:
        await asyncio.wait_for(_until_disconnected(receive), HELD_SECONDS_MAX)
    except TimeoutError:
        await _reset(scope, receive)


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _answer_chosen(injection: Injection, scope: Scope, send: Send) -> None:
    await _answer(scope, send, InjectedError(injection.status), injection.status, injection.code)


async def _answer(scope: Scope, send: Send, error: ApiError, status: int, code: str) -> None:
    body = error_body(error, request_id_of(scope), code)
    headers = [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    start: HTTPResponseStartEvent = {
        "type": "http.response.start",
        "status": status,
        "headers": [(b"content-type", b"application/json"), *headers],
    }
    await _send_whole(send, start, body)


async def _send_whole(send: Send, start: HTTPResponseStartEvent, body: bytes) -> None:
    headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
    await send({**start, "headers": [*headers, (b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _asked_for(scope: Scope) -> str | None:
    """The header, if it comes from somebody who may ask."""
    if scope["type"] != ScopeType.HTTP:
        return None
    state = scope.get("state", {})
    caller = state.get("caller")
    if not isinstance(caller, Caller) or caller.tenant is None or state.get("refusal") is not None:
        return None
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == _HEADER), None)


def _marked(send: Send, injection: Injection) -> Send:
    """An answer that arrives says which fault it went through."""

    async def send_marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (_HEADER, injection.effect.value.encode())]
        await send(message)

    return send_marked
