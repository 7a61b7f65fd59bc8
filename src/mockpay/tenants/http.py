"""Routes of tenants, and the tenant of a request."""

from typing import Any, Final

import msgspec
from litestar import Request, Response, get, patch, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from mockpay import errors
from mockpay.context import Context
from mockpay.exact_json import encode
from mockpay.limits import allowances_in_words
from mockpay.settings import RateLimitTier
from mockpay.tenants import service
from mockpay.tenants.gate import caller_of, require_tenant
from mockpay.tenants.model import Preferences, Registration, Tenant
from mockpay.tenants.rate_limit import allowance_of
from mockpay.tenants.service import Credentials
from mockpay.types import rfc3339
from mockpay.web.answers import json_response
from mockpay.web.dependencies import ContextDependency
from mockpay.web.openapi import StrictBody
from mockpay.web.openapi import errors as error_answers

AnyRequest = Request[Any, Any, Any]
_INSTRUCTIONS: Final = (
    "Keep both values: the API key is shown only now. Send it as 'Authorization: Bearer <api_key>', "
    "and verify webhooks with the webhook secret. "
)


class RegisteredView(msgspec.Struct, frozen=True):
    message: str
    tenant_id: str
    name: str
    email: str
    api_key: str
    webhook_secret: str
    created_at: str
    instructions: str


class CredentialsView(msgspec.Struct, frozen=True):
    tenant_id: str
    name: str
    email: str
    api_key: str
    webhook_secret: str
    webhook_url: str | None
    rate_limit_tier: RateLimitTier
    created_at: str


class RotatedKeyView(msgspec.Struct, frozen=True):
    message: str
    tenant_id: str
    api_key: str
    instructions: str


class RotatedSecretView(msgspec.Struct, frozen=True):
    """Until `previous_expires_at` the secret before signs as well."""

    message: str
    tenant_id: str
    webhook_secret: str
    previous_expires_at: str
    instructions: str


TenantDependency = NamedDependency[Tenant]


def current_tenant(request: AnyRequest) -> Tenant:
    """The tenant that the guard let in."""
    tenant = caller_of(request).tenant
    assert tenant is not None, "require_tenant guards every route that asks for one"
    return tenant


TENANT_ROUTE: dict[str, Any] = {"guards": [require_tenant], "security": [{"apiKey": []}]}
"""For the decorator of every such route."""
READ_ERRORS = (
    errors.Unauthorized,
    errors.FaultsOff,
    errors.RateLimited,
    errors.TooManyHeld,
    errors.DatabaseUnavailable,
)
"""Of every route of a tenant. Two of them are for who asks for a fault."""
BODY_ERRORS = (errors.InvalidRequest, errors.MalformedJson, errors.BodyTooLarge, errors.UnsupportedMediaType)


@post(
    "/api/auth/register",
    dto=StrictBody.of(Registration),
    return_dto=None,
    tags=["tenants"],
    summary="Register a tenant",
    responses=error_answers(*BODY_ERRORS, errors.EmailTaken, errors.RateLimited, errors.DatabaseUnavailable),
)
async def register(data: JSONBody[Registration], context: ContextDependency) -> Response[RegisteredView]:
    """Returns the API key and the webhook secret. Only a hash of the key is stored, so keep it.

    Limited by the client's address.
    """
    # Asked before: once the tenant is made, its key must not get lost because a question failed.
    limits = allowances_in_words(
        allowance_of(context.settings, context.settings.rate_limit_tier), await service.velocity_in_force(context)
    )
    credentials = await service.register(context, data)
    return json_response(encode(_registered_view(credentials, limits)), 201)


@get(
    "/api/auth/me",
    tags=["tenants"],
    summary="Read one's own credentials",
    responses=error_answers(*READ_ERRORS),
    **TENANT_ROUTE,
)
async def me(request: AnyRequest, tenant: TenantDependency, context: ContextDependency) -> Response[CredentialsView]:
    """`api_key` is the one that was presented: it is stored nowhere."""
    return await _credentials(request, context, tenant)


@patch(
    "/api/auth/me",
    dto=StrictBody.of(Preferences),
    return_dto=None,
    tags=["tenants"],
    summary="Set the default webhook URL",
    responses=error_answers(*BODY_ERRORS, *READ_ERRORS),
    **TENANT_ROUTE,
)
async def change_me(
    request: AnyRequest, data: JSONBody[Preferences], tenant: TenantDependency, context: ContextDependency
) -> Response[CredentialsView]:
    """It receives the webhooks of every payment that has no `webhook_url` of its own; `null` takes it away."""
    return await _credentials(request, context, await service.set_preferences(context, tenant, data))


@post(
    "/api/auth/rotate-key",
    status_code=200,
    tags=["tenants"],
    summary="Replace the API key",
    responses=error_answers(*READ_ERRORS),
    **TENANT_ROUTE,
)
async def rotate_key(
    request: AnyRequest, tenant: TenantDependency, context: ContextDependency
) -> Response[RotatedKeyView]:
    """The old key stops at once, on every process. If this answer is lost, so is the tenant: the key is not stored."""
    credentials = await service.rotate_api_key(context, tenant, _presented_key(request))
    view = RotatedKeyView(
        message="API key replaced; the old one has stopped.",
        tenant_id=str(tenant.id),
        api_key=credentials.api_key,
        instructions="Keep it: the API key is shown only now.",
    )
    return json_response(encode(view), 200)


@post(
    "/api/auth/rotate-webhook-secret",
    status_code=200,
    tags=["tenants"],
    summary="Replace the webhook secret",
    responses=error_answers(*READ_ERRORS),
    **TENANT_ROUTE,
)
async def rotate_webhook_secret(tenant: TenantDependency, context: ContextDependency) -> Response[RotatedSecretView]:
    """For a grace period both secrets sign every webhook, in both schemes, so that no receiver misses one."""
    secret, previous_expires_at = await service.rotate_webhook_secret(context, tenant)
    view = RotatedSecretView(
        message="Webhook secret replaced; until previous_expires_at the old one signs as well.",
        tenant_id=str(tenant.id),
        webhook_secret=secret,
        previous_expires_at=rfc3339(previous_expires_at),
        instructions="Give your receivers the new secret before the old one expires.",
    )
    return json_response(encode(view), 200)


ROUTES = [register, me, change_me, rotate_key, rotate_webhook_secret]


def _presented_key(request: AnyRequest) -> str:
    token = caller_of(request).token
    assert token is not None, "the tenant was recognised by it"
    return token


async def _credentials(request: AnyRequest, context: Context, tenant: Tenant) -> Response[CredentialsView]:
    view = CredentialsView(
        tenant_id=str(tenant.id),
        name=tenant.name,
        email=tenant.email,
        api_key=_presented_key(request),
        webhook_secret=await service.webhook_secret(context, tenant),
        webhook_url=tenant.webhook_url,
        rate_limit_tier=tenant.rate_limit_tier,
        created_at=rfc3339(tenant.created_at),
    )
    return json_response(encode(view), 200)


def _registered_view(credentials: Credentials, limits: str) -> RegisteredView:
    tenant = credentials.tenant
    return RegisteredView(
        message="Tenant registered.",
        tenant_id=str(tenant.id),
        name=tenant.name,
        email=tenant.email,
        api_key=credentials.api_key,
        webhook_secret=credentials.webhook_secret,
        created_at=rfc3339(tenant.created_at),
        instructions=f"{_INSTRUCTIONS}Limits: {limits}.",
    )
