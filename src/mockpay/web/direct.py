"""The busiest routes, served without the framework: its way to a handler costs more than all that the handler does.

A route here is known to the framework too, which documents it and takes every other spelling of its path. Both lead to
the same function.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Generic, TypeVar

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from mockpay.context import Context
from mockpay.errors import BodyTooLarge, MalformedJson, UnsupportedMediaType
from mockpay.web.asgi import BODY_BYTES_MAX, body_length_of, header_of, send_json
from mockpay.web.body import Model, decode_body, is_json
from mockpay.web.error_handler import answer_to
from mockpay.web.request_log import request_id_of

Caller = TypeVar("Caller")


class Reply(msgspec.Struct, frozen=True):
    """An answer in JSON."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}


class DirectRequest:
    """`values` are those of the path, in its order."""

    def __init__(self, scope: HTTPScope, body: bytes, values: tuple[str, ...]) -> None:
        self._scope = scope
        self._body = body
        self.values = values

    def header(self, name: bytes) -> str | None:
        """`name` is in lower case."""
        return header_of(self._scope, name)

    def read(self, model: type[Model]) -> Model:
        """The body. Raises MalformedJson, UnsupportedMediaType and InvalidRequest."""
        if not self._body:
            raise MalformedJson("The body is empty; send a JSON object.")
        if not is_json(self.header(b"content-type")):
            raise UnsupportedMediaType
        return decode_body(self._body, model)


class DirectRoute(msgspec.Struct, Generic[Caller], frozen=True):
    method: str
    template: str
    handle: Callable[[Context, Caller, DirectRequest], Awaitable[Reply]]


class DirectRoutes(Generic[Caller]):
    """Inside all other layers. `caller_of` raises what a request is to be refused with."""

    def __init__(
        self,
        app: ASGIApp,
        context_of: Callable[[], Context],
        caller_of: Callable[[HTTPScope], Caller],
        routes: Iterable[DirectRoute[Caller]],
    ) -> None:
        self._app = app
        self._context_of = context_of
        self._caller_of = caller_of
        self._routes = {(route.method, *_form(route.template)): route for route in routes}
        self._places = sorted({_places(route.template) for route in routes})
        """Where, in the paths that are known, the values stand."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # What a page of another origin may read is the framework's to say.
        if scope["type"] == ScopeType.HTTP and header_of(scope, b"origin") is None:
            route, values = self._find(scope["method"], scope["path"])
            if route is not None:
                reply = await self._answer(route, values, scope, receive)
                await send_json(send, reply.status, reply.body, reply.headers)
                return
        await self._app(scope, receive, send)

    def _find(self, method: str, path: str) -> tuple[DirectRoute[Caller] | None, tuple[str, ...]]:
        parts = path.split("/")
        for places in self._places:
            if not places or len(parts) > places[-1]:
                values = tuple(parts[place] for place in places)
                route = self._routes.get((method, *_with_places(parts, places)))
                if route is not None and all(values):
                    return route, values
        return None, ()

    async def _answer(
        self, route: DirectRoute[Caller], values: tuple[str, ...], scope: HTTPScope, receive: Receive
    ) -> Reply:
        scope["path_template"] = route.template
        try:
            caller = self._caller_of(scope)
            return await route.handle(
                self._context_of(), caller, DirectRequest(scope, await _read(scope, receive), values)
            )
        except Exception as error:
            answer, body = answer_to(error, request_id_of(scope))
            return Reply(answer.status, body, answer.headers)


def _form(template: str) -> tuple[str, ...]:
    """What a path with this template has in common with all others of it."""
    return _with_places(template.split("/"), _places(template))


def _places(template: str) -> tuple[int, ...]:
    return tuple(place for place, part in enumerate(template.split("/")) if part.startswith("{"))


def _with_places(parts: list[str], places: tuple[int, ...]) -> tuple[str, ...]:
    return tuple("{}" if place in places else part for place, part in enumerate(parts))


async def _read(scope: HTTPScope, receive: Receive) -> bytes:
    """The body. Raises BodyTooLarge, and MalformedJson if the client is gone in the middle of it."""
    if (body_length_of(scope) or 0) > BODY_BYTES_MAX:
        raise BodyTooLarge
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise MalformedJson("The connection ended before the body did.")
        body += message["body"]
        if len(body) > BODY_BYTES_MAX:
            raise BodyTooLarge
        if not message["more_body"]:
            return body
