"""The database's clock is set back: what waits for a time that is far away now. In place of the clock the rows are moved.

tests/acceptance/test_clock.py sets the clock of the whole program, which shows that the times that matter are these.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import msgspec
import pytest

from mockpay import housekeeping
from mockpay.faults import service as faults
from mockpay.faults.requests import CreateFault, FaultText
from mockpay.housekeeping import clean_once
from mockpay.payments import service as payments
from mockpay.settings import Settings
from mockpay.webhooks.schedule import Schedule
from tests.integration.conftest import open_client
from tests.support.fakes import FakeClock, Receiver
from tests.support.gateway import Gateway, register

AHEAD = "SELECT next_attempt_at - now() FROM webhook_deliveries ORDER BY created_at DESC, id DESC LIMIT 1"


async def set_back(superuser: Any) -> None:
    """By an hour: everything in the queue is an hour further ahead."""
    await superuser.execute(
        "UPDATE webhook_deliveries SET next_attempt_at = next_attempt_at + interval '1 hour', "
        "claimed_at = claimed_at + interval '1 hour'"
    )


async def test_a_webhook_in_backoff_is_due_after_the_clock_was_set_back(
    gateway: Gateway, receiver: Receiver, superuser: Any
) -> None:
    receiver.answers = [500]
    payment = await gateway.succeeded("k")
    assert await gateway.worker().run_due() == 1
    await set_back(superuser)
    assert await gateway.worker().run_due() == 0
    await clean_once(gateway.context)
    assert await gateway.worker().run_due() == 1
    _, [delivery] = await payments.deliveries(gateway.context, gateway.tenant, payment.id)
    assert (delivery.status, delivery.attempts) == ("delivered", 2)


async def test_one_under_lease_keeps_no_more_than_its_lease(
    gateway: Gateway, receiver: Receiver, superuser: Any
) -> None:
    """Its worker may be sending it: it is not sent a second time beside that."""
    receiver.hold()
    payment = await gateway.succeeded("k")
    sending = asyncio.create_task(gateway.worker().run_due())
    await receiver.wait_for(1)
    await set_back(superuser)
    await clean_once(gateway.context)
    longest = Schedule.of(gateway.context.settings).longest_wait
    assert longest - timedelta(seconds=5) < await superuser.fetchval(AHEAD) <= longest
    assert await gateway.worker().run_due() == 0
    receiver.gate.set()
    await sending
    _, [delivery] = await payments.deliveries(gateway.context, gateway.tenant, payment.id)
    assert (delivery.status, delivery.attempts, len(receiver.received)) == ("delivered", 1, 1)


async def test_waits_that_are_meant_stay_as_they_are(gateway: Gateway, receiver: Receiver, superuser: Any) -> None:
    """A backoff, and what a fault holds back for almost an hour."""
    receiver.answers = [500]
    await gateway.succeeded("backoff")
    await gateway.worker().run_due()
    gateway.tenant = msgspec.structs.replace(gateway.tenant, has_faults=True)
    await faults.create(gateway.context, gateway.tenant, CreateFault(FaultText("delay; seconds=3500")))
    await gateway.succeeded("held")
    waits = "SELECT next_attempt_at FROM webhook_deliveries ORDER BY id"
    before = await superuser.fetch(waits)
    await clean_once(gateway.context)
    assert await superuser.fetch(waits) == before
    assert await gateway.worker().run_due() == 0


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
