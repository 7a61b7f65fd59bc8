"""How fast one worker empties a queue, to a sink on this machine."""

import asyncio
import time
from typing import Final

from tests.support.fakes import open_receiver

from mockpay.app import open_parts
from mockpay.postgres.pool import connect
from mockpay.settings import Settings

QUEUED: Final = 3000
TENANT = "00000000-0000-7000-8000-0000000000bb"
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
    SELECT id, gen_random_uuid(), 1, 'USD', 'success', 'k', now(), now() FROM tenant RETURNING *
)
INSERT INTO webhook_deliveries (tenant_id, id, payment_id, event_id, event, url, receiver_host, payload, max_attempts,
                                next_attempt_at, created_at)
SELECT tenant_id, gen_random_uuid(), id, gen_random_uuid(), 'payment.success', $1, 'sink', '{"amount": 49.99}', 3,
       now(), now()
FROM payment, generate_series(1, $2::integer)
"""
WAITING = "SELECT count(*) FROM webhook_deliveries WHERE status = 'pending' AND attempts = 0"


async def per_second(url: str, failing: int = 0) -> float:
    """First attempts. Each `failing`-th is refused. The sink runs in this process too: the figure is a lower bound."""
    settings = Settings(webhook_concurrency_per_host=64)
    async with open_receiver() as receiver, open_parts(settings, url) as (_, worker):
        connection = await connect(url)
        await connection.execute(QUEUE, receiver.url, QUEUED)
        receiver.answers = [500 if failing and number % failing == 0 else 200 for number in range(QUEUED)]
        started = time.perf_counter()
        running = asyncio.create_task(worker.run())
        while await connection.fetchval(WAITING):
            await asyncio.sleep(0.05)
        elapsed = time.perf_counter() - started
        worker.stop()
        await running
        await connection.close()
        assert len(receiver.received) >= QUEUED
    return QUEUED / elapsed
