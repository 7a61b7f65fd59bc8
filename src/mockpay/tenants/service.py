"""Register tenants, and recognise them by their key."""

import msgspec

from mockpay.context import Context
from mockpay.errors import EmailTaken, Unauthorized
from mockpay.tenants import store
from mockpay.tenants.model import Registration, Tenant, bearer_key, hash_api_key
from mockpay.webhooks import store as webhooks


class Credentials(msgspec.Struct, frozen=True):
    """A tenant with its secrets in the clear: for its own eyes, never for a log."""

    tenant: Tenant
    api_key: str
    webhook_secret: str


async def register(context: Context, registration: Registration) -> Credentials:
    """Raises EmailTaken."""
    now = context.clock.now()
    tenant = Tenant(
        id=context.new_id(),
        name=registration.name,
        email=registration.email,
        rate_limit_tier=context.settings.rate_limit_tier,
        webhook_url=None,
        created_at=now,
    )
    api_key, webhook_secret = context.new_secret(), context.new_secret()
    async with context.database.transaction() as connection:
        if not await store.insert(connection, tenant, hash_api_key(api_key)):
            raise EmailTaken
        await webhooks.add_secret(connection, tenant.id, context.new_id(), webhook_secret, now)
    return Credentials(tenant, api_key, webhook_secret)


async def authenticate(context: Context, authorization: str | None) -> Tenant:
    """Looked up at every request and never cached, so that a rotated key stops at once, on every process.

    Raises Unauthorized.
    """
    api_key = bearer_key(authorization)
    if api_key is None:
        raise Unauthorized
    async with context.database.connection() as connection:
        tenant = await store.by_api_key(connection, hash_api_key(api_key))
    if tenant is None:
        raise Unauthorized("This API key is unknown, or was replaced by a newer one.")
    return tenant


async def webhook_secret(context: Context, tenant: Tenant) -> str:
    async with context.database.connection() as connection:
        return await webhooks.newest_secret(connection, tenant.id)
