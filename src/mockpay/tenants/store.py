"""The table of tenants."""

from typing import Final
from uuid import UUID

from mockpay.postgres.pool import Connection
from mockpay.tenants.model import Tenant

_INSERT_SQL: Final = """
INSERT INTO tenants (id, name, email, api_key_sha256, rate_limit_tier, created_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (lower(email)) DO NOTHING RETURNING id
"""
# Fenced on the old key: of two rotations that race, the second finds its key replaced.
_REPLACE_API_KEY_SQL: Final = """
UPDATE tenants SET api_key_sha256 = $3 WHERE id = $1 AND api_key_sha256 = $2 RETURNING id
"""
_SET_WEBHOOK_URL_SQL: Final = """
UPDATE tenants SET webhook_url = $2 WHERE id = $1
RETURNING id, name, email, rate_limit_tier, webhook_url, created_at, has_faults
"""
_SET_TIER_SQL: Final = """
UPDATE tenants SET rate_limit_tier = $2 WHERE id = $1
RETURNING id, name, email, rate_limit_tier, webhook_url, created_at, has_faults
"""
_BY_ID_SQL: Final = """
SELECT id, name, email, rate_limit_tier, webhook_url, created_at, has_faults FROM tenants WHERE id = $1
"""
# A lock that other writers to the tenant wait for, but that the foreign keys to it do not.
_LOCK_SQL: Final = "SELECT id FROM tenants WHERE id = $1 FOR NO KEY UPDATE"
# By id, which is a UUIDv7: newest first.
_PAGE_SQL: Final = """
SELECT id, name, email, rate_limit_tier, webhook_url, created_at, has_faults FROM tenants
WHERE id < $1 ORDER BY id DESC LIMIT $2
"""


async def insert(connection: Connection, tenant: Tenant, api_key_sha256: bytes) -> bool:
    """False if the e-mail address is taken, in whatever case."""
    inserted = await connection.fetchval(
        _INSERT_SQL,
        tenant.id,
        tenant.name,
        tenant.email,
        api_key_sha256,
        tenant.rate_limit_tier,
        tenant.created_at,
    )
    return inserted is not None


async def by_id(connection: Connection, tenant_id: UUID) -> Tenant | None:
    row = await connection.fetchrow(_BY_ID_SQL, tenant_id)
    return None if row is None else Tenant(**dict(row))


async def replace_api_key(connection: Connection, tenant_id: UUID, old_sha256: bytes, new_sha256: bytes) -> bool:
    """False if the old one is not the tenant's any more."""
    return await connection.fetchval(_REPLACE_API_KEY_SQL, tenant_id, old_sha256, new_sha256) is not None


async def set_webhook_url(connection: Connection, tenant_id: UUID, url: str | None) -> Tenant:
    row = await connection.fetchrow(_SET_WEBHOOK_URL_SQL, tenant_id, url)
    assert row is not None, "tenants are never deleted"
    return Tenant(**dict(row))


async def set_tier(connection: Connection, tenant_id: UUID, tier: str) -> Tenant | None:
    row = await connection.fetchrow(_SET_TIER_SQL, tenant_id, tier)
    return None if row is None else Tenant(**dict(row))


async def lock(connection: Connection, tenant_id: UUID) -> None:
    """Until the transaction ends: what the tenant does under this lock happens one after the other."""
    await connection.execute(_LOCK_SQL, tenant_id)


async def page(connection: Connection, before: UUID, limit: int) -> list[Tenant]:
    """Newest first."""
    return [Tenant(**dict(row)) for row in await connection.fetch(_PAGE_SQL, before, limit)]
