"""Does to a request and its answer what the client asked for. The operation itself knows nothing of it."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final, assert_never
from uuid import UUID

import msgspec
import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPResponseStartEvent, HTTPScope, Message, Receive, Scope, Send

from mockpay.context import Context
from mockpay.errors import ApiError, FaultsOff, InvalidRequest, TooManyHeld
from mockpay.faults import protocol
from mockpay.faults.budget import HoldBudget
from mockpay.faults.model import HEADER, Effect, InjectedError, Injection, LostAs, RequestInProgress, parse
from mockpay.faults.protocol import hold, reset, transport_of
from mockpay.faults.rules import operation_of
from mockpay.faults.service import fired_by, refuse_when_off, wait_of
from mockpay.tenants.gate import Caller
from mockpay.tenants.model import Tenant
from mockpay.web.asgi import (
    BODY_BYTES_MAX,
    add_headers,
    body_length_of,
    header_of,
    path_of,
    raw_headers,
    read_ahead,
    send_json,
    send_whole,
)
from mockpay.web.error_handler import error_body
from mockpay.web.request_log import mark_injected, request_id_of

_RAW_HEADER: Final = HEADER.lower().encode()
HELD_SECONDS_MAX: Final = 600.0
"""A request that gets no answer is not held for ever."""


class Faults:
    """Inside the gate: only a tenant, within its limit, may ask for faults: for one request, or by rules for its own.

    The order is: the header, then the rules. What becomes of a payment by its own values is no matter of this.
    """

    def __init__(self, app: ASGIApp, context_of: Callable[[], Context], budget: HoldBudget) -> None:
        self._app = app
        self._context_of = context_of
        self._budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tenant = _may_ask(scope)
        if tenant is None or scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        with ExitStack() as held:
            try:
                injection = await self._asked_for(scope, tenant, held)
            except (FaultsOff, InvalidRequest, TooManyHeld) as error:
                await _answer(scope, send, error)
                return
            except Exception as error:  # whatever it is, the error handler answers it, inside
                scope["state"]["refusal"] = error
                injection = None
            if injection is None:
                await self._app(scope, receive, send)
                return
            # An answer that arrives says which fault it went through.
            add_headers(scope, raw_headers({HEADER: str(injection)}))
            await self._inject(injection, scope, receive, send)

    async def _asked_for(self, scope: HTTPScope, tenant: Tenant, held: ExitStack) -> Injection | None:
        """Returns what this request suffers. If it is to be held, it is counted until `held` is left.

        Raises InvalidRequest for the header, FaultsOff, TooManyHeld and DatabaseUnavailable.
        """
        injection, rule_id = await self._chosen(scope, tenant)
        if injection is None:
            return None
        if injection.holds:
            held.enter_context(self._budget.hold(tenant.id, _kept_of_body(injection, scope)))
        return _told(scope, injection, rule_id)

    async def _chosen(self, scope: HTTPScope, tenant: Tenant) -> tuple[Injection | None, UUID | None]:
        """Returns what the header asks for, or else a rule, which is named then."""
        header = header_of(scope, _RAW_HEADER)
        if header is not None:
            refuse_when_off(self._context_of())
            return parse(header).drawn(self._context_of().new_seed(), HEADER), None
        operation = operation_of(scope["method"], path_of(scope))
        fired = await fired_by(self._context_of(), tenant, operation) if operation else None
        if fired is None:
            return None, None
        drawn = parse(fired.fault).drawn(fired.seed, wait_of(fired))
        # The seed is the rule's, which is named. In the header of a request it would draw another time.
        return msgspec.structs.replace(drawn, seed=None), fired.id

    async def _inject(self, injection: Injection, scope: Scope, receive: Receive, send: Send) -> None:
        match injection.effect:
            case Effect.LATENCY:
                receive = await read_ahead(receive)  # it came, and is done, also if the client does not wait for it
                with protocol.held(scope):
                    await asyncio.sleep(injection.seconds)
                await self._app(scope, receive, send)
            case Effect.TIMEOUT:
                await _hold(scope, receive)
            case Effect.RESET:
                await _reset(scope, receive)
            case Effect.ERROR:
                await _answer(scope, send, InjectedError(injection.status, injection.code))
            case Effect.IN_PROGRESS:
                await _answer(scope, send, RequestInProgress())
            case Effect.TRUNCATED:
                await self._truncate(scope, receive, send)
            case Effect.MALFORMED:
                start, body = await self._done(scope, receive)
                await send_whole(send, start, _spoilt(body))
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
        await _send_half(send, *await self._done(scope, receive))  # and keep none of it while the client reads
        transport_of(scope).close()  # in order: what was written still arrives
        await _until_disconnected(scope, receive)


async def _send_half(send: Send, start: HTTPResponseStartEvent, body: bytes) -> None:
    await send(start)
    await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})


async def _lose(injection: Injection, scope: Scope, receive: Receive, send: Send) -> None:
    match injection.lost_as:
        case LostAs.RESET:
            await _reset(scope, receive)
        case LostAs.TIMEOUT:
            await _hold(scope, receive)
        case LostAs.ERROR:
            await _answer(scope, send, InjectedError(injection.status, injection.code))
        case _:
            assert_never(injection.lost_as)


async def _reset(scope: Scope, receive: Receive) -> None:
    reset(transport_of(scope))
    await _until_disconnected(scope, receive)


async def _hold(scope: Scope, receive: Receive) -> None:
    """Until the client gives up."""
    hold(scope)
    try:
        async with asyncio.timeout(HELD_SECONDS_MAX):
            await _until_disconnected(scope, receive)
    except TimeoutError:
        await _reset(scope, receive)


async def _until_disconnected(scope: Scope, receive: Receive) -> None:
    with protocol.held(scope):
        while (await receive())["type"] != "http.disconnect":
            pass


async def _answer(scope: Scope, send: Send, error: ApiError) -> None:
    if isinstance(error, InjectedError | RequestInProgress):
        mark_injected(scope)
    await send_json(send, error.status, error_body(error, request_id_of(scope)), error.headers)


def _kept_of_body(injection: Injection, scope: Scope) -> int:
    """How much of the body there may be while the request is held: until it is done, and the framework drops it."""
    if not injection.is_done:
        return 0
    length = body_length_of(scope)
    if length is None:
        length = 0 if header_of(scope, b"transfer-encoding") is None else BODY_BYTES_MAX
    return min(length, BODY_BYTES_MAX)  # what is longer is refused, without being read


def _spoilt(body: bytes) -> bytes:
    """No JSON any more, and as long as it was. An answer without a body stays without."""
    return body[:-1] + b"!" if body else body


def _told(scope: Scope, injection: Injection, rule_id: UUID | None) -> Injection:
    """To the log and, by what the request carries, to the timeline."""
    structlog.contextvars.bind_contextvars(fault=str(injection), **({"fault_rule": str(rule_id)} if rule_id else {}))
    scope["state"]["fault"] = (str(injection), rule_id)
    return injection


def _may_ask(scope: Scope) -> Tenant | None:
    """The tenant whose request it is, if the gate let it in."""
    state: Any = scope.get("state") or {}
    caller = state.get("caller")
    return caller.tenant if isinstance(caller, Caller) and state.get("refusal") is None else None
