"""The table of tenants."""

from typing import Final

from mockpay.postgres.pool import Connection
from mockpay.tenants.model import Tenant

_INSERT_SQL: Final = """
INSERT INTO tenants (id, name, email, api_key_sha256, rate_limit_tier, created_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (lower(email)) DO NOTHING RETURNING id
"""
_BY_API_KEY_SQL: Final = """
SELECT id, name, email, rate_limit_tier, webhook_url, created_at FROM tenants WHERE api_key_sha256 = $1
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


async def by_api_key(connection: Connection, api_key_sha256: bytes) -> Tenant | None:
    row = await connection.fetchrow(_BY_API_KEY_SQL, api_key_sha256)
    return None if row is None else Tenant(**dict(row))
