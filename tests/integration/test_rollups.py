"""Figures that are kept instead of counted. That they are true at the end of every other test, the fixture checks."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from mockpay import rollups
from mockpay.housekeeping import clean_once
from mockpay.payments.model import Status
from mockpay.postgres.migrate import bundled_migrations, migrate
from mockpay.postgres.pool import Connection, connect
from mockpay.rollups import Figure
from tests.support.databases import UNEVEN
from tests.support.fakes import FakeClock
from tests.support.gateway import Gateway
from tests.support.waiting import until_blocked

LATER = timedelta(minutes=10)
FINALLY = timedelta(days=2)


@pytest.fixture
async def busy(gateway: Gateway) -> Gateway:
    """Payments in four statuses, by several connections at a time; delivered, given up and waiting webhooks."""
    gateway.receiver.answers = [200, 410, 500]
    await gateway.failed("failed")
    payments = await asyncio.gather(*(gateway.create(f"k{number}") for number in range(6)))
    pending = [payment for payment in payments if payment.status is Status.PENDING]
    await asyncio.gather(*(gateway.succeeded_of(payment) for payment in pending[:4]))
    await gateway.worker().run_due()
    return gateway


async def rows(connection: Connection, where: str = "true") -> int:
    count: int = await connection.fetchval(f"SELECT count(*) FROM rollups WHERE {where}")
    return count


async def test_what_is_there_before_is_counted_by_the_migration(empty_database_url: str) -> None:
    connection = await connect(empty_database_url)
    await migrate(connection, [each for each in bundled_migrations() if each.version <= 8])
    await connection.execute(
        """
        WITH tenant AS (
            INSERT INTO tenants (id, name, email, api_key_sha256, rate_limit_tier, created_at)
            VALUES (gen_random_uuid(), 'T', 't@example.com', sha256('t'), 'standard', now()) RETURNING id
        ), payment AS (
            INSERT INTO payments (tenant_id, id, amount_minor_units, currency, status, idempotency_key, created_at,
                                  updated_at)
            SELECT id, gen_random_uuid(), 100 * number, 'EUR', 'success', number::text, now(), now()
            FROM tenant, generate_series(1, 3) AS number RETURNING *
        )
        INSERT INTO webhook_deliveries (tenant_id, id, payment_id, event_id, event, url, receiver_host, payload, status,
                                        attempts, max_attempts, next_attempt_at, created_at, finished_at)
        SELECT tenant_id, id, id, id, 'payment.success', 'http://x/', 'x', '{}', 'delivered', 3, 3, now(), now(), now()
        FROM payment
        """
    )
    await migrate(connection, bundled_migrations())
    assert await connection.fetch(UNEVEN) == []
    kept = await connection.fetch("SELECT figure, label, currency, rows, total FROM rollups ORDER BY figure")
    assert [tuple(row) for row in kept] == [
        ("deliveries", "delivered", "", 3, 6),
        ("payments", "success", "EUR", 3, 600),
        ("tenants", "registered", "", 1, 0),
    ]
    await connection.close()


async def test_putting_together_changes_no_figure(busy: Gateway, clock: FakeClock, superuser: Any) -> None:
    since = clock.now() - rollups.DAY
    # By one more process of the server: behind a pooler all before may have been done by a single one.
    await superuser.execute("UPDATE payments SET amount_minor_units = 1 WHERE status = 'success'")
    before = await rollups.read(superuser, list(Figure), since)
    assert len(before) >= 7
    scattered = await rows(superuser)
    await rollups.put_together(superuser, clock.now())
    assert await rows(superuser, "backend <> 0 AND minute > '-infinity'") > 0, "this minute is not over"
    await rollups.put_together(superuser, clock.now() + LATER)
    assert await rows(superuser) == len(before) < scattered
    assert await rows(superuser, "backend <> 0") == 0
    assert await rollups.read(superuser, list(Figure), since) == before
    # What is counted afterwards is put beside it.
    await busy.create("one more")
    await rollups.put_together(superuser, clock.now() + LATER)
    assert await rows(superuser, "backend <> 0") == 0
    assert sum(each.rows for each in await rollups.read(superuser, [Figure.PAYMENTS], since)) == 8


async def test_after_a_day_nothing_is_recent_and_the_minutes_are_forgotten(
    busy: Gateway, clock: FakeClock, superuser: Any
) -> None:
    await rollups.put_together(superuser, clock.now() + LATER)
    clock.advance(24 * 3600 + 30)  # still in the minute in which they were made, a day later
    found = await rollups.read(superuser, [Figure.PAYMENTS], clock.now() - rollups.DAY)
    assert sum(each.recent for each in found) == 7
    clock.advance(31)
    for now in (clock.now(), clock.now() + FINALLY):
        found = await rollups.read(superuser, [Figure.PAYMENTS, Figure.AUDIT_ENTRIES], clock.now() - rollups.DAY)
        assert sum(each.rows for each in found if each.figure is Figure.PAYMENTS) == 7
        assert sum(each.recent for each in found) == 0
        await rollups.put_together(superuser, now)
    assert await rows(superuser, "minute > '-infinity'") == 0
    # A payment of back then may still change, and one of now is recent.
    await busy.succeeded("new")
    found = await rollups.read(superuser, [Figure.PAYMENTS], clock.now() - rollups.DAY)
    assert sum(each.recent for each in found) == 1


async def test_the_housekeeping_puts_together(busy: Gateway, clock: FakeClock, superuser: Any) -> None:
    assert await rows(superuser, "backend <> 0") > 0
    clock.advance(LATER.total_seconds())
    await clean_once(busy.context)
    assert await rows(superuser, "backend <> 0") == 0


async def test_it_waits_for_nobody_who_counts(busy: Gateway, clock: FakeClock, database: Any, superuser: Any) -> None:
    async with database.connection() as counting:
        async with counting.transaction():
            await counting.execute("UPDATE payments SET currency = 'EUR'")
            async with asyncio.timeout(10):
                await rollups.put_together(superuser, clock.now() + LATER)
        assert await rows(superuser, "currency = 'EUR' AND backend = 0") == 0
    await rollups.put_together(superuser, clock.now() + LATER)
    assert await rows(superuser, "currency = 'EUR' AND backend = 0") == await rows(superuser, "currency = 'EUR'") > 0


async def test_who_counts_meanwhile_loses_nothing(
    busy: Gateway, clock: FakeClock, database: Any, superuser: Any
) -> None:
    """The row that is added to is being taken away by the other: it is made anew. That the sum is true, the fixture checks."""
    async with database.connection() as counting:
        await counting.execute("UPDATE payments SET currency = 'EUR'")
        async with superuser.transaction():
            await rollups.put_together(superuser, clock.now() + LATER)
            again = asyncio.create_task(counting.execute("UPDATE payments SET currency = 'CHF' WHERE currency = 'EUR'"))
            await until_blocked(superuser, 1)
            assert not again.done()
            # A second one leaves it to the first.
            async with database.connection() as other, asyncio.timeout(10):
                assert await other.execute(rollups._PUT_TOGETHER_SQL, clock.now() + LATER, clock.now()) == "INSERT 0 0"
        await again
    found = await rollups.read(superuser, [Figure.PAYMENTS], clock.now() - rollups.DAY)
    assert {each.currency for each in found} == {"CHF"}
