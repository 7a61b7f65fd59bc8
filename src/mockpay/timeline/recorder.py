"""Sees every request of a tenant, and keeps it in the journal before the client sees its answer."""

import re
import time
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from mockpay.context import Context
from mockpay.faults.protocol import is_gone
from mockpay.faults.rules import operation_of
from mockpay.journal.model import RequestEntry
from mockpay.tenants.gate import Caller
from mockpay.tenants.model import Tenant
from mockpay.types import parse_uuid
from mockpay.web.asgi import header_of, path_of, watch
from mockpay.web.request_log import request_id_of

PATH_LENGTH_KEPT: Final = 1000
KEY_LENGTH_KEPT: Final = 255
_PAYMENT: Final = re.compile(r"/api/payments/([^/]+)(/.*)?")
_TIMELINE: Final = re.compile(r"/api/(payments/[^/]+/)?timeline")


class Recorder:
    """Inside the gate, which knows whose request it is, and outside the faults, which may swallow its answer."""

    def __init__(self, app: ASGIApp, context_of: Callable[[], Context]) -> None:
        self._app = app
        self._context_of = context_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tenant = _tenant_of(scope)
        if scope["type"] != ScopeType.HTTP or tenant is None or self._context_of().settings.timeline_hours == 0:
            await self._app(scope, receive, send)
            return
        if _TIMELINE.fullmatch(path_of(scope)):  # looking at it must not change it
            await self._app(scope, receive, send)
            return
        recording = _Recording(self._context_of(), scope, tenant)
        watch(scope, recording.see)
        try:
            await self._app(scope, receive, send)
        finally:
            recording.finish()


class _Recording:
    """What is seen of one request. What can be told from it later is told when it is written, for many at once."""

    __slots__ = (
        "_context",
        "_duration",
        "_id",
        "_is_over",
        "_replayed",
        "_scope",
        "_started",
        "_started_at",
        "_status",
        "_tenant",
    )

    def __init__(self, context: Context, scope: HTTPScope, tenant: Tenant) -> None:
        self._context = context
        self._scope = scope
        self._tenant = tenant
        self._started_at = context.clock.now()
        self._started = time.perf_counter()
        self._duration = 0.0
        self._id: UUID | None = None
        self._status: int | None = None
        self._replayed = False
        self._is_over = False

    def see(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = None if is_gone(self._scope) else message["status"]
            self._replayed = (b"idempotent-replayed", b"true") in message["headers"]
        elif message["type"] == "http.response.body" and not message.get("more_body"):
            self.finish()

    def finish(self) -> None:
        """Once: with the last piece of the answer, before it is sent, or when there will be none."""
        if not self._is_over:
            self._is_over = True
            self._duration = time.perf_counter() - self._started
            self._context.journal.add(self._entry)

    def _entry(self) -> RequestEntry:
        scope, path = self._scope, path_of(self._scope)
        key = header_of(scope, b"idempotency-key")
        fault, rule_id = scope["state"].get("fault", (None, None))
        operation = operation_of(scope["method"], path)
        self._id = self._id or self._context.new_id()
        return RequestEntry(
            tenant_id=self._tenant.id,
            id=self._id,
            started_at=self._started_at,
            request_id=request_id_of(scope),
            method=_kept(scope["method"], KEY_LENGTH_KEPT),
            path=_kept(path, PATH_LENGTH_KEPT),
            operation=operation.value if operation else None,
            payment_id=_payment_id(path),
            idempotency_key=None if key is None else _kept(key, KEY_LENGTH_KEPT),
            status=self._status,
            replayed=self._replayed,
            duration_milliseconds=round(self._duration * 1000),
            fault=fault,
            fault_rule=rule_id,
        )


def _tenant_of(scope: Scope) -> Tenant | None:
    state: Any = scope.get("state") or {}
    caller = state.get("caller")
    return caller.tenant if isinstance(caller, Caller) else None


def _payment_id(path: str) -> UUID | None:
    match = _PAYMENT.fullmatch(path)
    try:
        return parse_uuid(match[1]) if match else None
    except ValueError:
        return None


def _kept(text: str, length: int) -> str:
    """What PostgreSQL can store of it."""
    if text.isascii() and "\0" not in text:
        return text[:length]
    return text[:length].encode("utf-8", errors="replace").decode().replace("\0", "�")
