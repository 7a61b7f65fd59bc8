"""What requests cost as the data grows: the same questions at a thousand rows, and at a million.

Rows are made by the database itself, in minutes. Their audit entries have no true hashes: nothing here verifies them.
"""

import asyncio
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Final

import httpx
from tests.support.processes import Gateway

from mockpay.database_access import DatabaseAccess
from mockpay.postgres.pool import connect

SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
REPEATS: Final = 15
TENANTS: Final = 20
TABLES: Final = ("payments", "audit_log", "webhook_deliveries")
ADMIN_KEY: Final = "the-admin-key-of-the-benchmark"

_PAYMENTS = """
INSERT INTO payments (tenant_id, id, amount_minor_units, currency, status, idempotency_key, created_at, updated_at)
SELECT ($1::uuid[])[1 + number % cardinality($1::uuid[])], gen_random_uuid(), 100 + number % 10000, 'USD',
       CASE WHEN number % 10 < 8 THEN 'success' ELSE 'pending' END, 'grown ' || number,
       now() - interval '1 minute' - number * interval '1 second', now()
FROM generate_series($2::bigint + 1, $3::bigint) AS number
"""
_AUDIT = """
INSERT INTO audit_log (tenant_id, payment_id, sequence, id, old_status, new_status, triggered_by, metadata, created_at,
                       prev_hash, entry_hash)
SELECT tenant_id, id, step, gen_random_uuid(), CASE WHEN step > 1 THEN 'pending' END, 'pending', 'create_api',
       '{"amount": "1"}', created_at, repeat('0', 64), repeat('a', 64)
FROM payments, generate_series(1, 3) AS step
WHERE NOT EXISTS (SELECT FROM audit_log WHERE tenant_id = payments.tenant_id AND payment_id = payments.id)
"""
_DELIVERIES = """
INSERT INTO webhook_deliveries (tenant_id, id, payment_id, event_id, event, url, receiver_host, payload, status,
                                attempts, max_attempts, next_attempt_at, created_at, finished_at)
SELECT tenant_id, id, id, gen_random_uuid(), 'payment.success', 'http://127.0.0.1:9/', '127.0.0.1:9', '{}',
       CASE WHEN nth % 1000 = 0 THEN 'dead' ELSE 'delivered' END, 1, 3, created_at, created_at, created_at
FROM (SELECT *, row_number() OVER () AS nth FROM payments) AS paid
ON CONFLICT DO NOTHING
"""


def measure(gateway: Gateway, access: DatabaseAccess) -> dict[str, list[float]]:
    """For each question, milliseconds at each size."""
    tenants = [gateway.register(f"{uuid.uuid4()}@example.com") for _ in range(TENANTS)]
    times: dict[str, list[float]] = {}
    grown = 0
    for size in SIZES:
        asyncio.run(grow(access, [tenant["tenant_id"] for tenant in tenants], grown, size))
        grown = size
        for name, ask in _questions(gateway, size).items():
            times.setdefault(name, []).append(_milliseconds(ask))
    return times


async def grow(access: DatabaseAccess, tenant_ids: list[str], from_rows: int, to_rows: int) -> None:
    connection = await connect(access.migration_url)
    await connection.execute(_PAYMENTS, tenant_ids, from_rows, to_rows, timeout=600)
    await connection.execute(_AUDIT, timeout=600)
    await connection.execute(_DELIVERIES, timeout=600)
    await connection.execute(f"VACUUM (ANALYZE) {', '.join(TABLES)}", timeout=600)
    await connection.close()


def _questions(gateway: Gateway, size: int) -> dict[str, Callable[[], httpx.Response]]:
    client, admin = gateway.client, {"Authorization": f"Bearer {ADMIN_KEY}"}
    first = client.get("/api/payments?limit=100").json()
    payment_id = first["data"][0]["id"]
    far = (datetime.now(UTC) - timedelta(seconds=0.9 * size)).strftime("%Y-%m-%dT%H:%M:%SZ")
    body = {"amount": 5, "currency": "USD"}

    def create() -> httpx.Response:
        return client.post("/api/payments", json=body, headers={"Idempotency-Key": uuid.uuid4().hex})

    return {
        "create": create,
        "list, first 100": lambda: client.get("/api/payments?limit=100"),
        "list, 100 at the far end": lambda: client.get(f"/api/payments?limit=100&created_to={far}"),
        "list, of a status that none has": lambda: client.get("/api/payments?status=refunded"),
        "audit of a payment": lambda: client.get(f"/api/payments/{payment_id}/audit"),
        "timeline, first page": lambda: client.get("/api/timeline"),
        "dead letters": lambda: client.get("/api/admin/dlq", headers=admin),
        "admin users": lambda: client.get("/api/admin/users", headers=admin),
        "admin metrics": lambda: client.get("/api/admin/metrics", headers=admin),
        "/metrics": lambda: client.get("/metrics"),
    }


def _milliseconds(ask: Callable[[], httpx.Response]) -> float:
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        ask().raise_for_status()
        times.append(time.perf_counter() - started)
    return median(times) * 1000
