"""The database's clock is set back: what waits for a time that is far away now. In place of the clock the rows are moved.

tests/acceptance/test_clock.py sets the clock of the whole program, which shows that the times that matter are these.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from mockpay import housekeeping
from mockpay.faults import service as faults
from mockpay.faults.requests import CreateFault, FaultText
from mockpay.payments import service as payments
from mockpay.payments.model import Refund
from mockpay.settings import Settings
from mockpay.webhooks import waits
from mockpay.webhooks.schedule import Schedule
from mockpay.webhooks.waits import Look
from tests.integration.conftest import open_client
from tests.support.fakes import FakeClock, Receiver
from tests.support.gateway import Gateway, register
from tests.support.logs import captured_logs
from tests.support.waiting import until_polled

AHEAD = "SELECT next_attempt_at - now() FROM webhook_deliveries ORDER BY created_at DESC, id DESC LIMIT 1"


async def set_back(superuser: Any, by: str = "1 hour") -> None:
    """Everything in the queue is that much further ahead."""
    await superuser.execute(
        "UPDATE webhook_deliveries SET next_attempt_at = next_attempt_at + $1::text::interval, "
        "waits_since = waits_since + $1::text::interval, claimed_at = claimed_at + $1::text::interval",
        by,
    )


async def ahead(superuser: Any) -> float:
    """For how many seconds the latest delivery waits."""
    wait: timedelta = await superuser.fetchval(AHEAD)
    return wait.total_seconds()


async def test_a_webhook_in_backoff_waits_anew_after_the_clock_was_set_back(
    gateway: Gateway, receiver: Receiver, superuser: Any
) -> None:
    receiver.answers = [500]
    payment = await gateway.succeeded("k")
    assert await gateway.worker().run_due() == 1
    wait = await ahead(superuser)
    await set_back(superuser)
    with captured_logs(json_lines=True) as output:
        await waits.mend(gateway.context.database, None)
    assert '"deliveries": 1' in output.getvalue()
    assert 0 < await ahead(superuser) <= wait + 1
    later = await superuser.fetchval("SELECT now() + interval '2 seconds'")
    assert await gateway.worker().run_due(later) == 1
    _, [delivery] = await payments.deliveries(gateway.context, gateway.tenant, payment.id)
    assert (delivery.status, delivery.attempts) == ("delivered", 2)


async def test_one_that_was_never_tried_is_due(gateway: Gateway, superuser: Any) -> None:
    await gateway.succeeded("k")
    await set_back(superuser)
    assert await gateway.worker().run_due() == 0
    await waits.mend(gateway.context.database, None)
    assert await gateway.worker().run_due() == 1


async def test_one_under_lease_keeps_no_more_than_its_lease(
    gateway: Gateway, receiver: Receiver, superuser: Any
) -> None:
    """Its worker may be sending it: it is not sent a second time beside that."""
    receiver.hold()
    payment = await gateway.succeeded("k")
    sending = asyncio.create_task(gateway.worker().run_due())
    await receiver.wait_for(1)
    await set_back(superuser, "12 hours")
    await waits.mend(gateway.context.database, None)
    lease = Schedule.of(gateway.context.settings).lease.total_seconds()
    assert lease - 5 < await ahead(superuser) <= lease
    assert await gateway.worker().run_due() == 0
    receiver.gate.set()
    await sending
    _, [delivery] = await payments.deliveries(gateway.context, gateway.tenant, payment.id)
    assert (delivery.status, delivery.attempts, len(receiver.received)) == ("delivered", 1, 1)


async def test_waits_that_are_meant_stay_as_they_are(gateway: Gateway, receiver: Receiver, superuser: Any) -> None:
    """A backoff by settings that are others now, and what a fault holds back for almost an hour."""
    receiver.answers = [500]
    await gateway.succeeded("backoff")
    await gateway.worker(webhook_backoff_seconds=60).run_due()
    assert await ahead(superuser) > 50
    await faults.create(gateway.context, gateway.tenant, CreateFault(FaultText("delay; seconds=3500")))
    await gateway.succeeded("held")
    # As of a transaction that began a moment later.
    await superuser.execute("UPDATE webhook_deliveries SET waits_since = now() + interval '0.5 seconds'")
    due = "SELECT next_attempt_at FROM webhook_deliveries ORDER BY id"
    before = await superuser.fetch(due)
    await waits.mend(gateway.context.database, None)
    assert await superuser.fetch(due) == before
    assert await gateway.worker().run_due() == 0


@pytest.mark.parametrize(
    ("passed_here", "passed_there", "is_looked_through"),
    [(0, 0, False), (50, 50, False), (50, 3600, False), (50, 20, True), (50, -3600, True), (0, -3600, True)],
)
async def test_the_queue_is_looked_through_only_if_the_clock_was_set_back(
    gateway: Gateway, superuser: Any, passed_here: float, passed_there: float, is_looked_through: bool
) -> None:
    """Seconds since the last look, for this process and for the database."""
    await gateway.succeeded("k")
    look = await waits.mend(gateway.context.database, None)
    assert look is not None
    await set_back(superuser)
    before = Look(look.database - timedelta(seconds=passed_there), look.monotonic - passed_here)
    assert await waits.mend(gateway.context.database, before) is not None
    assert (await ahead(superuser) <= 0) == is_looked_through


async def test_what_another_holds_is_mended_later(gateway: Gateway, superuser: Any) -> None:
    await gateway.succeeded("k")
    await set_back(superuser)
    async with superuser.transaction():
        await superuser.execute("SELECT FROM webhook_deliveries FOR UPDATE")
        assert await waits.mend(gateway.context.database, None) is None
    assert await ahead(superuser) > 3500
    assert await waits.mend(gateway.context.database, None) is not None
    assert await ahead(superuser) <= 0


async def test_a_long_queue_is_looked_through_in_parts(gateway: Gateway, superuser: Any) -> None:
    """Each ends between two that wait for the same moment."""
    await gateway.succeeded("k")
    columns = await superuser.fetchval(
        "SELECT string_agg(column_name, ', ') FROM information_schema.columns "
        "WHERE table_name = 'webhook_deliveries' AND column_name <> 'id'"
    )
    await superuser.execute(
        f"INSERT INTO webhook_deliveries (id, {columns}) "
        f"SELECT gen_random_uuid(), {columns} FROM webhook_deliveries, generate_series(1, 12000)"
    )
    await set_back(superuser)
    await waits.mend(gateway.context.database, None)
    assert await superuser.fetchval("SELECT count(*) FROM webhook_deliveries WHERE next_attempt_at > now()") == 0


async def test_what_a_worker_is_sending_is_not_due_for_it_after_the_clock_was_set_ahead(
    gateway: Gateway, receiver: Receiver, superuser: Any
) -> None:
    """Nor does it take the place of what is."""
    receiver.hold()
    payment = await gateway.succeeded("k")
    await superuser.execute("UPDATE webhook_deliveries SET max_attempts = 1")  # or it would be sent twice, not lost
    worker = gateway.worker(webhook_concurrency_per_host=2)
    running = asyncio.create_task(worker.run())
    await receiver.wait_for(1)
    await superuser.execute("UPDATE webhook_deliveries SET next_attempt_at = now() - interval '1 day'")
    await gateway.succeeded("another")
    await receiver.wait_for(2)
    await until_polled(superuser, 3)
    receiver.gate.set()
    worker.stop()
    await running
    _, [delivery] = await payments.deliveries(gateway.context, gateway.tenant, payment.id)
    assert (delivery.status, delivery.attempts, len(receiver.received)) == ("delivered", 1, 2)


async def test_what_a_fault_held_back_and_set_free_is_due_at_once_after_the_clock_was_set_back(
    gateway: Gateway, superuser: Any
) -> None:
    await faults.create(gateway.context, gateway.tenant, CreateFault(FaultText("reorder; seconds=3000"), times=1))
    payment = await gateway.succeeded("k")
    assert await gateway.worker().run_due() == 0
    await gateway.change(payment, Refund(Decimal(20), None))
    assert await gateway.worker().run_due() == 1
    await set_back(superuser)
    await waits.mend(gateway.context.database, None)
    assert await gateway.worker().run_due() == 1


async def test_the_house_is_kept_as_soon_as_the_clock_is_set_back(clock: FakeClock) -> None:
    waiting = asyncio.create_task(housekeeping.pause(clock, look_at_clock_seconds=0.01))
    await asyncio.sleep(0)  # it looks at the clock
    for seconds in (1, 86400, 0):
        clock.advance(seconds)
        assert not (await asyncio.wait([waiting], timeout=0.05))[0], "it waits for its time"
    clock.advance(-3600)
    await asyncio.wait_for(waiting, 5)


@pytest.fixture
async def limited(database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A tenant with ten requests in a quarter of an hour."""
    async with open_client(database_url, Settings(rate_limit_standard=10, rate_limit_window_seconds=900)) as client:
        await register(client)
        yield client


@pytest.mark.parametrize(("set_back_by", "remaining"), [("1 hour", 9), ("30 seconds", 7)])
async def test_a_window_of_a_rate_limit_from_before_the_clock_was_set_back_is_over(
    limited: httpx.AsyncClient, superuser: Any, set_back_by: str, remaining: int
) -> None:
    """One that ends only a little later than it could may have been opened by a statement that began later."""
    for _ in range(2):
        assert (await limited.get("/api/auth/me")).status_code == 200
    await superuser.execute(f"UPDATE rate_limits SET expires_at = expires_at + interval '{set_back_by}'")
    response = await limited.get("/api/auth/me")
    assert int(response.headers["RateLimit-Remaining"]) == remaining
    if remaining == 9:
        assert int(response.headers["RateLimit-Reset"]) <= 900
