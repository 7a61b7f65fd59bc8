"""Deliveries by the thousand, written past the service: what a test needs waiting, delivered or dead."""

import re
from uuid import UUID

from mockpay.postgres.pool import Connection

TENANTS = """
WITH tenant AS (
    INSERT INTO tenants (id, name, email, api_key_sha256, rate_limit_tier, created_at)
    SELECT gen_random_uuid(), 'T', gen_random_uuid() || '@example.com', sha256(gen_random_uuid()::text::bytea),
           'standard', now()
    FROM generate_series(1, $1) RETURNING id
), secret AS (
    INSERT INTO webhook_secrets (tenant_id, id, secret, created_at)
    SELECT id, gen_random_uuid(), repeat('ab', 32), now() FROM tenant
), payment AS (
    INSERT INTO payments (tenant_id, id, amount_minor_units, currency, status, idempotency_key, created_at, updated_at)
    SELECT id, gen_random_uuid(), 1, 'USD', 'success', 'k', now(), now() FROM tenant
)
SELECT id FROM tenant ORDER BY id
"""
DELIVERIES = """
INSERT INTO webhook_deliveries (tenant_id, id, payment_id, event_id, event, url, receiver_host, payload, status,
                                max_attempts, next_attempt_at, created_at, finished_at)
SELECT payments.tenant_id, gen_random_uuid(), payments.id, gen_random_uuid(), 'payment.success', $3,
       replace($2, '#', lpad((number % $4)::text, 6, '0')), '{}', $5, 3, now() - $6 * interval '1 second', now(),
       CASE $5 WHEN 'pending' THEN NULL ELSE now() - $6 * interval '1 second' END
FROM payments, generate_series(1, $7::integer) AS number
WHERE payments.tenant_id = $1
"""


async def add_tenants(superuser: Connection, count: int) -> list[UUID]:
    """Each with a secret and a payment; in the order of their ids."""
    return [row["id"] for row in await superuser.fetch(TENANTS, count)]


async def add_deliveries(
    superuser: Connection,
    tenant_id: UUID,
    count: int,
    *,
    host: str = "host:80",
    hosts: int = 1,
    status: str = "pending",
    seconds_ago: float = 60,
    url: str = "http://127.0.0.1:9/",
) -> None:
    """They are due, or were finished, so long ago. In the name `host` a # is a number below `hosts`."""
    await superuser.execute(DELIVERIES, tenant_id, host, url, hosts, status, float(seconds_ago), count)


def rows_touched(explained: str) -> int:
    """What EXPLAIN (ANALYZE, FORMAT JSON) says was read from tables and indexes, and what was read for nothing."""
    nodes = re.findall(r'"Node Type": "(.*?)"', explained)
    assert nodes, "it is a plan"
    read = 0
    for node in re.split(r'(?="Node Type")', explained):
        if not re.match(r'"Node Type": "(Index|Index Only|Seq|Bitmap Heap) Scan"', node):
            continue
        loops, rows = _number("Actual Loops", node), _number("Actual Rows", node)
        read += round(loops * (rows + _number("Rows Removed by Filter", node)))
    return read


def _number(name: str, node: str) -> float:
    found = re.search(rf'"{name}": ([\d.]+)', node)
    return float(found[1]) if found else 0.0
