"""Every request to the API passes here first: whose is it, and is it within the limit?

This is outside the framework's routing, so that every answer carries the limit's headers, that of an unknown route
too, and before the body is read: a stranger gets a 401, whatever was sent. The gate itself answers nothing. It leaves
its findings with the request, and the guards of the routes act on them.
"""

import functools
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, Final

import msgspec
from litestar.connection import ASGIConnection
from litestar.enums import HttpMethod, ScopeType
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from mockpay.context import Context
from mockpay.errors import Forbidden, Unauthorized
from mockpay.postgres.group_commit import GroupCommit
from mockpay.tenants import admission
from mockpay.tenants.admission import Admission, Presented
from mockpay.tenants.model import Tenant, bearer_token, hash_api_key, is_admin_key, is_api_key
from mockpay.tenants.rate_limit import Window, limit_of, refusal, unlimited
from mockpay.web.asgi import add_headers, header_of, path_of

API_PREFIX: Final = "/api/"
BATCH_MAX: Final = 256
_IPV6_SITE_BITS: Final = 64
"""One customer of a provider has this much of an address in common."""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks: a tenant, the administrator, or neither. `token` is what was presented."""

    token: str | None = None
    tenant: Tenant | None = None
    is_admin: bool = False


class Gate:
    """Wraps the application. `context_of` is asked once it has started."""

    def __init__(self, app: ASGIApp, context_of: Callable[[], Context]) -> None:
        self._app = app
        self._context_of = context_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A browser's preflight asks for permission to ask; only the request itself counts.
        if (
            scope["type"] != ScopeType.HTTP
            or not path_of(scope).startswith(API_PREFIX)
            or scope["method"] == HttpMethod.OPTIONS
        ):
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        try:
            context = self._context_of()
            caller, window = await admit(context, header_of(scope, b"authorization"), _client_address(scope))
            add_headers(scope, window.headers())
            state["caller"] = caller
            if window.is_exceeded:
                state["refusal"] = refusal(context.settings, caller.tenant, window)
        except Exception as error:  # whatever it is, the error handler answers it, inside
            state["refusal"] = error
        await self._app(scope, receive, send)


async def admit(context: Context, authorization: str | None, client_address: str) -> tuple[Caller, Window]:
    """Who asks, and what is left to them. The request is counted. Raises DatabaseUnavailable."""
    token = bearer_token(authorization)
    if is_admin_key(context.settings.admin_key, token):
        return Caller(token=token, is_admin=True), unlimited(context.settings)
    api_key_sha256 = hash_api_key(token) if token is not None and is_api_key(token) else None
    if api_key_sha256 is None and limit_of(context.settings, context.settings.rate_limit_tier) is None:
        return Caller(token=token), unlimited(context.settings)
    found = await _admissions(context).submit(Presented(api_key_sha256, site_of(client_address)))
    return Caller(token=token, tenant=found.tenant), found.window


def _admissions(context: Context) -> GroupCommit[Presented, Admission]:
    def make() -> GroupCommit[Presented, Admission]:
        return GroupCommit(functools.partial(admit_together, context), batch_max=BATCH_MAX)

    return context.group_commits.of(admit_together, make)


async def admit_together(context: Context, presented: Sequence[Presented]) -> list[Admission]:
    """Requests that arrive while others are looked up are looked up together."""
    async with context.database.connection() as connection:
        return await admission.admit(connection, context.settings, presented)


@functools.lru_cache(maxsize=1024)
def site_of(client_address: str) -> str:
    """What a stranger is counted by: an IPv4 address, or the network of an IPv6 one, which has addresses to waste."""
    try:
        address = ip_address(client_address)
    except ValueError:
        return client_address
    if not isinstance(address, IPv6Address):
        return str(address)
    return str(address.ipv4_mapped or ip_network((address.packed, _IPV6_SITE_BITS), strict=False))


# The guards are coroutines, though they wait for nothing: the framework runs a plain function on a thread.


async def refuse(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """The guard of the whole application. Raises what the gate found: RateLimited, DatabaseUnavailable."""
    _raise_refusal(connection.scope)


async def require_tenant(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """The guard of routes that act for a tenant. Raises Unauthorized."""
    _tenant_of(connection.scope)


def admitted_tenant(scope: HTTPScope) -> Tenant:
    """What both guards see to, for a route that the framework does not guard. Raises what they raise."""
    _raise_refusal(scope)
    return _tenant_of(scope)


def _raise_refusal(scope: Scope) -> None:
    refusal = scope["state"].get("refusal")
    if refusal is not None:
        raise refusal


def _tenant_of(scope: Scope) -> Tenant:
    caller = _caller_of(scope)
    if caller.tenant is not None:
        return caller.tenant
    if caller.is_admin:
        raise Unauthorized("This is the admin key; here a tenant's api_key is needed.")
    raise _unknown(caller)


async def require_admin(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """The guard of admin routes. Raises Unauthorized and Forbidden."""
    caller = caller_of(connection)
    if caller.is_admin:
        return
    if caller.tenant is not None:
        raise Forbidden
    raise _unknown(caller)


def caller_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Caller:
    return _caller_of(connection.scope)


def _caller_of(scope: Scope) -> Caller:
    caller: Caller = scope["state"]["caller"]
    return caller


def _unknown(caller: Caller) -> Unauthorized:
    if caller.token is None:
        return Unauthorized()
    return Unauthorized("This key is unknown, or was replaced by a newer one.")


def _client_address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else "unknown"
