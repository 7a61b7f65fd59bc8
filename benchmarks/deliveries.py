"""How fast one worker process empties a queue, to a sink on this machine. Each delivery is of a payment of its own."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import psutil
from tests.support.fakes import open_receiver
from tests.support.processes import Program

from mockpay.database_access import DatabaseAccess
from mockpay.postgres.pool import Connection, connect

SECONDS: Final = 8
QUEUED: Final = 50_000
BACKLOG: Final = 1_000_000
SETTINGS: Final = {
    "MOCKPAY_LOG_LEVEL": "warning",
    # It is one tenant, and one sink.
    "MOCKPAY_WEBHOOK_CONCURRENCY_PER_TENANT": "64",
    "MOCKPAY_WEBHOOK_CONCURRENCY_PER_HOST": "64",
}
QUEUE = """
WITH tenant AS (
    INSERT INTO tenants (id, name, email, api_key_sha256, rate_limit_tier, created_at)
    VALUES (gen_random_uuid(), 'Sink', gen_random_uuid() || '@example.com', sha256(gen_random_uuid()::text::bytea),
            'standard', now()) RETURNING id
), secret AS (
    INSERT INTO webhook_secrets (tenant_id, id, secret, created_at)
    SELECT id, gen_random_uuid(), repeat('ab', 32), now() FROM tenant
), payment AS (
    INSERT INTO payments (tenant_id, id, amount_minor_units, currency, status, idempotency_key, created_at, updated_at)
    SELECT id, gen_random_uuid(), 1, 'USD', 'success', 'k', now(), now()
    FROM tenant, generate_series(1, $2::integer) RETURNING *
)
INSERT INTO webhook_deliveries (tenant_id, id, payment_id, event_id, event, url, receiver_host, payload, max_attempts,
                                next_attempt_at, created_at)
SELECT tenant_id, gen_random_uuid(), id, gen_random_uuid(), 'payment.success', $1, 'sink', '{"amount": 49.99}', 3,
       now(), now()
FROM payment
"""
GIVEN_UP = "UPDATE webhook_deliveries SET status = 'dead', finished_at = now() WHERE status = 'pending'"


async def measure(access: DatabaseAccess, folder: Path, *, queued: int, failing: int = 0) -> tuple[float, float]:
    """Attempts a second in the first seconds, and the worker's memory in MB then. Each `failing`-th is refused.

    The sink, in this process, takes part of the machine: the figure is a lower bound.
    """
    async with open_receiver() as receiver, opened(access.migration_url) as connection:
        await fill(connection, receiver.url, queued)
        receiver.answers = [500 if failing and number % failing == 0 else 200 for number in range(min(queued, 100_000))]
        worker = Program(folder / "worker.log", "worker", **SETTINGS, MOCKPAY_DATABASE_URL=access.url)
        try:
            await receiver.wait_for(1, timeout_seconds=30)
            before, started = len(receiver.received), time.perf_counter()
            await asyncio.sleep(SECONDS)
            rate = (len(receiver.received) - before) / (time.perf_counter() - started)
            memory = psutil.Process(worker.process.pid).memory_info().rss / 2**20
        finally:
            await asyncio.to_thread(worker.stop)
        await connection.execute(GIVEN_UP, timeout=600)
    return rate, memory


async def fill(connection: Connection, url: str, queued: int) -> None:
    await connection.execute(QUEUE, url, queued, timeout=600)
    await connection.execute("VACUUM ANALYZE webhook_deliveries", timeout=600)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Connection]:
    connection = await connect(url)
    try:
        yield connection
    finally:
        await connection.close()
