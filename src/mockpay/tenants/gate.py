"""Every request to the API passes here first: whose is it, and is it within the limit?

This is outside the framework's routing, so that every answer carries the limit's headers, that of an unknown route
too, and before the body is read: a stranger gets a 401, whatever was sent. The gate itself answers nothing. It leaves
its findings with the request, and the guards of the routes act on them.
"""

from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, Final

import msgspec
from litestar.connection import ASGIConnection
from litestar.enums import HttpMethod, ScopeType
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send
from litestar.utils.path import normalize_path

from mockpay.context import Context
from mockpay.errors import Forbidden, RateLimited, Unauthorized
from mockpay.postgres.pool import Connection
from mockpay.settings import Settings
from mockpay.tenants import store
from mockpay.tenants.model import Tenant, bearer_token, hash_api_key, is_admin_key, is_api_key
from mockpay.tenants.rate_limit import Window, hit, unlimited
from mockpay.web.asgi import adding, header_of

API_PREFIX: Final = "/api/"
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
            # As the router will read it: "//api/payments" is a payment's route too.
            or not normalize_path(scope["path"]).startswith(API_PREFIX)
            or scope["method"] == HttpMethod.OPTIONS
        ):
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        window: Window | None = None
        try:
            caller, window = await admit(self._context_of(), header_of(scope, "Authorization"), _client_address(scope))
            state["caller"] = caller
            if window.is_exceeded:
                state["refusal"] = RateLimited(window.reset_seconds)
        except Exception as error:  # whatever it is, the error handler answers it, inside
            state["refusal"] = error
        await self._app(scope, receive, send if window is None else adding(send, window.headers()))


async def admit(context: Context, authorization: str | None, client_address: str) -> tuple[Caller, Window]:
    """Count the request. The key is looked up every time and never cached, so that a rotated one stops at once."""
    token = bearer_token(authorization)
    if is_admin_key(context.settings.admin_key, token):
        return Caller(token=token, is_admin=True), unlimited(context.settings)
    if not is_api_key(token) and context.settings.rate_limit_tier == "unlimited":
        return Caller(token=token), unlimited(context.settings)
    async with context.database.connection() as connection:
        return await _admit(connection, context.settings, token, client_address)


async def _admit(
    connection: Connection, settings: Settings, token: str | None, client_address: str
) -> tuple[Caller, Window]:
    if token is not None and is_api_key(token):
        tenant = await store.by_api_key(connection, hash_api_key(token))
        if tenant:
            window = await hit(connection, settings, tenant.rate_limit_tier, f"tenant {tenant.id}")
            return Caller(token=token, tenant=tenant), window
    window = await hit(connection, settings, settings.rate_limit_tier, f"address {site_of(client_address)}")
    return Caller(token=token), window


def site_of(client_address: str) -> str:
    """What a stranger is counted by: an IPv4 address, or the network of an IPv6 one, which has addresses to waste."""
    try:
        address = ip_address(client_address)
    except ValueError:
        return client_address
    if not isinstance(address, IPv6Address):
        return str(address)
    return str(address.ipv4_mapped or ip_network((address.packed, _IPV6_SITE_BITS), strict=False))


def refuse(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """The guard of the whole application. Raises what the gate found: RateLimited, DatabaseUnavailable."""
    refusal = connection.scope["state"].get("refusal")
    if refusal is not None:
        raise refusal


def require_tenant(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """The guard of routes that act for a tenant. Raises Unauthorized."""
    caller = caller_of(connection)
    if caller.tenant is not None:
        return
    if caller.is_admin:
        raise Unauthorized("This is the admin key; here a tenant's api_key is needed.")
    raise _unknown(caller)


def require_admin(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """The guard of admin routes. Raises Unauthorized and Forbidden."""
    caller = caller_of(connection)
    if caller.is_admin:
        return
    if caller.tenant is not None:
        raise Forbidden
    raise _unknown(caller)


def caller_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Caller:
    caller: Caller = connection.scope["state"]["caller"]
    return caller


def _unknown(caller: Caller) -> Unauthorized:
    if caller.token is None:
        return Unauthorized()
    return Unauthorized("This key is unknown, or was replaced by a newer one.")


def _client_address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else "unknown"
