"""The outermost layer: gives each request its id, and writes one log line when it is answered."""

import logging
import random
import re
import time
from collections.abc import Callable
from typing import Any

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from mockpay.telemetry import Telemetry
from mockpay.web.asgi import add_headers, header_of, observed, unwatch, watch

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:+/=-]{1,128}")

_PROBES = ("/health", "/ready")
"""Asked every few seconds by whatever watches over the process; their answers are no news."""

_INJECTED = "answer_is_injected"

log = structlog.stdlib.get_logger("mockpay.http")


def new_request_id() -> str:
    return f"{random.getrandbits(128):032x}"


def request_id_of(scope: Scope) -> str:
    """The id that this layer gave the request."""
    request_id: str = scope["state"]["request_id"]
    return request_id


def mark_injected(scope: Scope) -> None:
    """Says that the answer which is about to be sent was asked for by a fault, and is none of MockPay's own."""
    scope["state"][_INJECTED] = True


class RequestLog:
    """Wraps the whole application, so that even an answer the framework gives by itself carries an id."""

    def __init__(self, app: ASGIApp, telemetry_of: Callable[[], Telemetry]) -> None:
        self._app = app
        self._telemetry_of = telemetry_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:  # lifespan
            await self._app(scope, receive, send)
            return
        request_id = _client_request_id(scope) or new_request_id()
        status = 0

        def see(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]

        observing = observed(scope, send)
        watch(scope, see)
        scope["state"]["request_id"] = request_id
        add_headers(scope, [(b"x-request-id", request_id.encode())])
        started = time.perf_counter()
        # Not taken back: the request is a task of its own, and ends with it.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            await self._app(scope, receive, observing)
        finally:
            unwatch(scope)
            seconds = time.perf_counter() - started
            _log_request(scope, status, seconds)
            # The framework leaves the route's template, once it has found the route.
            route = str(scope.get("path_template") or "unmatched")
            is_injected = _INJECTED in scope["state"]
            self._telemetry_of().request(scope["method"], route, status, seconds, is_injected=is_injected)


def _client_request_id(scope: Scope) -> str | None:
    given = header_of(scope, b"x-request-id")
    return given if given and _SANE_REQUEST_ID.fullmatch(given) else None


def _log_request(scope: Any, status: int, seconds: float) -> None:
    level = logging.DEBUG if scope["path"] in _PROBES else logging.INFO
    if not log.isEnabledFor(level):
        return
    log.log(
        level,
        "request",
        method=scope["method"],
        path=scope["path"],
        status=status,
        duration_milliseconds=round(seconds * 1000, 2),
    )
