"""Register tenants, and change what is theirs: keys, secrets, the default webhook URL."""

from datetime import datetime, timedelta

import msgspec

from mockpay import limits
from mockpay.context import Context
from mockpay.errors import EmailTaken, Unauthorized
from mockpay.limits import Allowance
from mockpay.tenants import store
from mockpay.tenants.model import Preferences, Registration, Tenant, hash_api_key
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


async def velocity_in_force(context: Context) -> Allowance | None:
    """Returns after how many payments a fraud rule flags a tenant's next; None where no rule does."""
    if context.settings.unlimited:
        return None
    async with context.database.connection() as connection:
        return await limits.velocity_in_force(connection)


async def rotate_api_key(context: Context, tenant: Tenant, old_key: str) -> Credentials:
    """The old key stops at once, on every process. Raises Unauthorized if it was replaced meanwhile."""
    new_key = context.new_secret()
    async with context.database.transaction() as connection:
        replaced = await store.replace_api_key(connection, tenant.id, hash_api_key(old_key), hash_api_key(new_key))
        if not replaced:
            raise Unauthorized("This API key was replaced by a newer one just now.")
        return Credentials(tenant, new_key, await webhooks.current_secret(connection, tenant.id))


async def rotate_webhook_secret(context: Context, tenant: Tenant) -> tuple[str, datetime]:
    """Returns the new secret, and until when the one before signs beside it. Any earlier one is forgotten."""
    secret = context.new_secret()
    grace = timedelta(seconds=context.settings.webhook_secret_grace_seconds)
    async with context.database.transaction() as connection:
        await store.lock(connection, tenant.id)
        expires_at = await webhooks.retire_secret(connection, tenant.id, grace)
        await webhooks.add_secret(connection, tenant.id, context.new_id(), secret, context.clock.now())
    return secret, expires_at


async def set_preferences(context: Context, tenant: Tenant, preferences: Preferences) -> Tenant:
    """Raises InvalidRequest if the address guard refuses the URL."""
    problem = await context.address_guard.problem_with(tenant.id, preferences.webhook_url)
    if problem:
        raise problem
    async with context.database.connection() as connection:
        return await store.set_webhook_url(connection, tenant.id, preferences.webhook_url)


async def webhook_secret(context: Context, tenant: Tenant) -> str:
    async with context.database.connection() as connection:
        return await webhooks.current_secret(connection, tenant.id)
