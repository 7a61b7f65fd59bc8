"""Whose requests are these, and are they within the limit? Asked for many at once, in one statement.

A key is looked up at each request and never cached, so that a rotated one stops at once, on every process.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from mockpay.postgres.pool import Connection
from mockpay.settings import Settings
from mockpay.tenants.model import Tenant
from mockpay.tenants.rate_limit import Window, limits, unlimited, window_after

# One look into the key for each, whatever the planner thinks of so small a table. One statement counts, however many
# processes there are: the row's lock makes it exact. The rows are locked in one order, so that two of these can't wait
# for each other. A limit is a part of the key: a tenant in another tier begins anew.
#
# A window that ends later than one which begins now is of a time before the clock was set back, and is over. But not by
# less than a minute: a statement that waited for the row's lock has an earlier now() than the one that it waited for.
_ADMIT_SQL: Final = """
WITH asked AS (
    SELECT presented.place, tenant.*,
           CASE WHEN tenant.id IS NULL THEN 'address ' || presented.address ELSE 'tenant ' || tenant.id END
               || '/' || tier.requests || '/' || $6::integer AS key
    FROM unnest($1::bytea[], $2::text[]) WITH ORDINALITY AS presented (api_key_sha256, address, place)
    LEFT JOIN LATERAL (
        SELECT id, name, email, rate_limit_tier, webhook_url, created_at, has_faults FROM tenants
        WHERE tenants.api_key_sha256 = presented.api_key_sha256 LIMIT 1
    ) AS tenant ON true
    LEFT JOIN unnest($3::text[], $4::bigint[]) AS tier (name, requests)
        ON tier.name = coalesce(tenant.rate_limit_tier, $5)
),
counted AS (
    INSERT INTO rate_limits AS held (key, hits, expires_at)
    SELECT key, count(*), now() + $6::integer * interval '1 second' FROM asked WHERE key IS NOT NULL
    GROUP BY key ORDER BY key
    ON CONFLICT (key) DO UPDATE SET
        hits = CASE WHEN held.expires_at <= now() OR held.expires_at > excluded.expires_at + interval '1 minute'
                    THEN excluded.hits ELSE held.hits + excluded.hits END,
        expires_at = CASE WHEN held.expires_at <= now() OR held.expires_at > excluded.expires_at + interval '1 minute'
                          THEN excluded.expires_at ELSE held.expires_at END
    RETURNING key, hits, extract(epoch FROM expires_at - now())::float8 AS seconds_left
)
SELECT asked.*, counted.hits, counted.seconds_left FROM asked LEFT JOIN counted USING (key) ORDER BY place
"""
_FORGET_EXPIRED_SQL: Final = "DELETE FROM rate_limits WHERE expires_at <= now()"


class Presented(msgspec.Struct, frozen=True):
    """What a request is known by: the hash of its key, if it has one, and else its client's address."""

    api_key_sha256: bytes | None
    address: str


class Admission(msgspec.Struct, frozen=True):
    """`tenant` is None where there is no such key: then it was the address that was counted."""

    tenant: Tenant | None
    window: Window


async def admit(connection: Connection, settings: Settings, presented: Sequence[Presented]) -> list[Admission]:
    """Count these requests, in their order."""
    of_tiers = limits(settings)
    rows = await connection.fetch(
        _ADMIT_SQL,
        [each.api_key_sha256 for each in presented],
        [each.address for each in presented],
        list(of_tiers),
        list(of_tiers.values()),
        settings.rate_limit_tier,
        settings.rate_limit_window_seconds,
    )
    # What the statement counted together happened one after the other: the last of them saw all the hits.
    later = Counter(row["key"] for row in rows)
    found = []
    for row in rows:
        key = row["key"]
        later[key] -= 1
        found.append(_admission(settings, row, later[key]))
    return found


async def forget_expired(connection: Connection) -> None:
    """Windows that are over count for nothing; client addresses would pile up."""
    await connection.execute(_FORGET_EXPIRED_SQL)


def _admission(settings: Settings, row: Any, later: int) -> Admission:
    tenant = None
    if row["id"] is not None:
        tenant = Tenant(**{name: row[name] for name in Tenant.__struct_fields__})
    if row["key"] is None:
        return Admission(tenant, unlimited(settings))
    tier = tenant.rate_limit_tier if tenant else settings.rate_limit_tier
    return Admission(tenant, window_after(row["hits"] - later, limits(settings)[tier], row["seconds_left"]))
