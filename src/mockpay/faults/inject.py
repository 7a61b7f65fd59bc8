"""Does to a request and its answer what the client asked for. The operation itself knows nothing of it."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, assert_never

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPResponseStartEvent, HTTPScope, Message, Receive, Scope, Send
from litestar.utils.path import normalize_path

from mockpay.context import Context
from mockpay.errors import ApiError, InvalidRequest
from mockpay.faults import store
from mockpay.faults.model import HEADER, Effect, InjectedError, Injection, LostAs, RequestInProgress, parse
from mockpay.faults.protocol import reset, transport_of
from mockpay.faults.rules import ask, operation_of
from mockpay.tenants.gate import Caller
from mockpay.tenants.model import Tenant
from mockpay.web.error_handler import error_body
from mockpay.web.request_log import request_id_of

HELD_SECONDS_MAX: Final = 600.0
"""A request that gets no answer is not held for ever."""
_HEADER: Final = HEADER.lower().encode()


class Faults:
    """Inside the gate: only a tenant, within its limit, may ask for faults: for one request, or by rules for its own.

    The order is: the header, then the rules. What becomes of a payment by its own values is no matter of this.
    """

    def __init__(self, app: ASGIApp, context_of: Callable[[], Context]) -> None:
        self._app = app
        self._context_of = context_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tenant = _may_ask(scope)
        if tenant is None or scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        try:
            injection = await self._asked_for(scope, tenant)
        except InvalidRequest as error:
            await _answer(scope, send, error, error.status, error.code)
            return
        except Exception as error:  # whatever it is, the error handler answers it, inside
            scope["state"]["refusal"] = error
            injection = None
        if injection is None:
            await self._app(scope, receive, send)
            return
        structlog.contextvars.bind_contextvars(fault=injection.effect.value)
        await self._inject(injection, scope, receive, _marked(send, injection))

    async def _asked_for(self, scope: HTTPScope, tenant: Tenant) -> Injection | None:
        """Raises InvalidRequest for the header, and DatabaseUnavailable."""
        header = next((value.decode("latin-1") for name, value in scope["headers"] if name == _HEADER), None)
        if header is not None:
            return parse(header)
        operation = operation_of(scope["method"], normalize_path(scope["path"])) if tenant.has_faults else None
        if operation is None:
            return None
        async with self._context_of().database.transaction() as connection:
            fired, asked = ask(await store.lock_for(connection, tenant.id, operation), operation)
            for rule in asked:
                await store.count(connection, tenant.id, rule)
        if fired is None:
            return None
        structlog.contextvars.bind_contextvars(fault_rule=str(fired.id))
        return parse(fired.fault)

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


def _may_ask(scope: Scope) -> Tenant | None:
    """The tenant whose request it is, if the gate let it in."""
    state: Any = scope.get("state") or {}
    caller = state.get("caller")
    return caller.tenant if isinstance(caller, Caller) and state.get("refusal") is None else None


def _marked(send: Send, injection: Injection) -> Send:
    """An answer that arrives says which fault it went through."""

    async def send_marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (_HEADER, injection.effect.value.encode())]
        await send(message)

    return send_marked
