"""A receiver that never answers costs the others nothing."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.gateway import Gateway

DELIVERIES = 200


@pytest.fixture
async def silent_port() -> AsyncIterator[int]:
    """Accepts, reads, and says nothing."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            pass
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0, backlog=512)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_host_that_never_answers_does_not_hold_up_one_that_works(
    gateway: Gateway, silent_port: int, superuser: Any
) -> None:
    """Those of the silent one are the older ones, so they are first in the queue. All settings are the defaults."""
    await superuser.execute("UPDATE fraud_rules SET is_active = false")
    for number in range(DELIVERIES):
        await gateway.succeeded(f"k{number}")
    await superuser.execute(
        """
        INSERT INTO webhook_deliveries (tenant_id, id, payment_id, event_id, event, url, receiver_host, payload,
                                        max_attempts, next_attempt_at, created_at)
        SELECT tenant_id, gen_random_uuid(), payment_id, gen_random_uuid(), event, $1, $2, payload, max_attempts,
               next_attempt_at - interval '1 minute', created_at
        FROM webhook_deliveries
        """,
        f"http://127.0.0.1:{silent_port}/", f"127.0.0.1:{silent_port}",
    )  # fmt: skip
    working = asyncio.create_task(gateway.worker().run())
    try:
        await gateway.receiver.wait_for(DELIVERIES, timeout_seconds=5)
        sending = "SELECT count(*) FROM webhook_deliveries WHERE url LIKE '%:' || $1 || '/' AND claimed_at IS NOT NULL"
        assert await superuser.fetchval(sending, str(silent_port)) == 16
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    assert len({received.headers["X-MockPay-Delivery"] for received in gateway.receiver.received}) == DELIVERIES
