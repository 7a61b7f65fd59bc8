"""Deliveries by a worker to a real receiver: signed, retried, dead, logged, claimed once."""

import asyncio
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from standardwebhooks.webhooks import Webhook

from mockpay.faults import service as faults
from mockpay.faults.requests import CreateFault, FaultText
from mockpay.payments.model import Refund
from mockpay.tenants import service as tenants
from mockpay.tenants.model import Preferences
from mockpay.tenants.service import Credentials
from mockpay.types import Amount
from mockpay.webhooks import claims, store
from mockpay.webhooks.address import WebhookUrl
from mockpay.webhooks.delivery import judge
from mockpay.webhooks.shares import Limits, Round
from mockpay.webhooks.signing import standard_webhooks_secret
from tests.support.fakes import Receiver
from tests.support.gateway import Gateway
from tests.support.waiting import until, until_polled

LEASE = timedelta(seconds=10)


async def expire_waits(superuser: Any) -> None:
    """Let every backoff and every lease be over, in place of waiting for it."""
    await superuser.execute("UPDATE webhook_deliveries SET next_attempt_at = now() WHERE status = 'pending'")


async def claim(gateway: Gateway, limit: int = 10) -> list[store.Claim]:
    async with gateway.context.database.transaction() as connection:
        limits = Limits(total=limit, per_tenant=limit, per_host=limit)
        return (await claims.claim(connection, Round(), sending={}, limits=limits, lease=LEASE)).claims


async def settle(gateway: Gateway, claimed: store.Claim, response_status: int) -> bool:
    worker = gateway.worker()
    sent = store.Sent(duration_milliseconds=100, response_status=response_status, response_body="")
    result = judge(claimed, [sent], worker._schedule, gateway.context.clock.now(), 0.0)
    async with gateway.context.database.transaction() as connection:
        [kept] = await store.settle(connection, [(claimed, result)])
        return kept


async def delivery_row(superuser: Any) -> Any:
    rows = await superuser.fetch("SELECT * FROM webhook_deliveries")
    assert len(rows) == 1
    return rows[0]


async def attempts(superuser: Any) -> list[Any]:
    rows: list[Any] = await superuser.fetch("SELECT * FROM delivery_attempts ORDER BY delivery_id, attempt")
    return rows


async def test_one_post_for_each_event(gateway: Gateway, receiver: Receiver) -> None:
    await gateway.failed("failed")
    payment = await gateway.succeeded("refunded")
    await gateway.change(payment, Refund(Amount("20"), "torn"))
    await gateway.create("flagged", amount="200000")
    assert await gateway.worker().run_due() == 4
    bodies = {body["event"]: body for body in map(msgspec.json.decode, (r.body for r in receiver.received))}
    assert len(receiver.received) == 4
    common = {"event_id", "event", "payment_id", "status", "amount", "currency", "timestamp"}
    assert set(bodies["payment.success"]) == common
    assert set(bodies["payment.failed"]) == common | {"failure_code", "failure_message"}
    assert set(bodies["payment.refunded"]) == common | {"original_amount", "refund_amount", "refund_reason"}
    assert set(bodies["fraud.detected"]) == common | {"reason", "rule"}
    assert bodies["payment.refunded"]["status"] == "partially_refunded"
    assert bodies["payment.refunded"]["refund_amount"] == 20
    assert bodies["fraud.detected"]["rule"] == "amount_limit"


async def test_a_payment_without_a_url_sends_nothing(gateway: Gateway, superuser: Any) -> None:
    await gateway.create("k", webhook=False, amount="200000")
    assert await superuser.fetchval("SELECT count(*) FROM webhook_deliveries") == 0


async def test_the_tenants_default_url_is_used(gateway: Gateway, receiver: Receiver) -> None:
    preferences = Preferences(WebhookUrl(receiver.url + "/default"))
    await tenants.set_preferences(gateway.context, gateway.tenant, preferences)
    await gateway.create("k", webhook=False, amount="200000")
    await gateway.worker().run_due()
    assert [received.path for received in receiver.received] == ["/webhooks/default"]


async def test_both_signatures_verify(gateway: Gateway, receiver: Receiver, credentials: Credentials) -> None:
    await gateway.succeeded("k")
    await gateway.worker().run_due()
    received = receiver.received[0]
    digest = hmac.new(credentials.webhook_secret.encode(), received.body, hashlib.sha256).hexdigest()
    assert received.headers["X-MockPay-Signature"] == f"sha256={digest}"
    # The fake clock stands far in the past, which is what a replayed delivery looks like; the package refuses those.
    webhook = Webhook(standard_webhooks_secret(credentials.webhook_secret))
    headers = {name.lower(): value for name, value in received.headers.items()}
    timestamp = webhook_time(headers)
    assert webhook.sign(headers["webhook-id"], timestamp, received.body.decode()) == headers["webhook-signature"]
    assert headers["content-type"] == "application/json"


def webhook_time(headers: dict[str, str]) -> Any:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)


async def test_a_receiver_that_fails_twice_gets_a_third_attempt(
    gateway: Gateway, receiver: Receiver, superuser: Any
) -> None:
    receiver.answers = [500, 503]
    await gateway.succeeded("k")
    for _ in range(3):
        assert await gateway.worker().run_due() == 1
        await expire_waits(superuser)
    assert await gateway.worker().run_due() == 0
    headers = [received.headers for received in receiver.received]
    assert [h["X-MockPay-Attempt"] for h in headers] == ["1", "2", "3"]
    assert len({h["X-MockPay-Delivery"] for h in headers}) == 1
    assert len({h["webhook-id"] for h in headers}) == 1
    assert len({received.body for received in receiver.received}) == 1
    row = await delivery_row(superuser)
    assert (row["status"], row["attempts"], row["last_error"]) == ("delivered", 3, None)
    assert [attempt["response_status"] for attempt in await attempts(superuser)] == [500, 503, 200]


async def test_a_receiver_that_fails_three_times_leaves_a_dead_delivery(
    gateway: Gateway, receiver: Receiver, superuser: Any
) -> None:
    receiver.answers = [500] * 9
    receiver.answer_body = b"out of order \x00\xff"
    await gateway.succeeded("k")
    for _ in range(5):
        await gateway.worker().run_due()
        await expire_waits(superuser)
    row = await delivery_row(superuser)
    assert (row["status"], row["attempts"], row["last_error"]) == ("dead", 3, "http_500")
    assert row["finished_at"] is not None
    logged = await attempts(superuser)
    assert [(a["attempt"], a["response_status"], a["url"]) for a in logged] == [
        (number, 500, receiver.url) for number in (1, 2, 3)
    ]
    assert logged[0]["response_body"] == "out of order ��"
    assert logged[0]["started_at"] == gateway.context.clock.now()
    assert logged[0]["duration_milliseconds"] >= 0
    assert len(receiver.received) == 3


async def test_the_backoff_doubles_and_counts_from_the_attempt(
    gateway: Gateway, receiver: Receiver, superuser: Any
) -> None:
    receiver.answers = [500, 500]
    await gateway.succeeded("k")
    await gateway.worker().run_due()
    waits = "SELECT extract(epoch FROM next_attempt_at - now())::float FROM webhook_deliveries"
    assert 1 < await superuser.fetchval(waits) <= 2
    assert await gateway.worker().run_due() == 0
    await expire_waits(superuser)
    await gateway.worker().run_due()
    assert 3 < await superuser.fetchval(waits) <= 4


async def test_the_wait_after_a_fault_is_drawn_from_the_rules_seed(gateway: Gateway, superuser: Any) -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    waits = []
    for number, seed in enumerate((7, 7, 8)):
        await faults.delete_all(gateway.context, gateway.tenant)
        await faults.create(gateway.context, gateway.tenant, CreateFault(FaultText("drop; attempts=2"), seed=seed))
        await gateway.succeeded(f"k{number}")
        assert await gateway.worker().run_due(now) == 1
        [next_attempt_at] = await superuser.fetchrow(
            "SELECT next_attempt_at FROM webhook_deliveries WHERE attempts = 1"
        )
        waits.append(next_attempt_at - now)
        await superuser.execute("UPDATE webhook_deliveries SET attempts = 2, next_attempt_at = '2040-01-01'")
        now += timedelta(days=1)
    assert waits[0] == waits[1] != waits[2]
    assert all(timedelta(seconds=2) <= wait <= timedelta(seconds=3) for wait in waits)


async def test_410_stops_at_once(gateway: Gateway, receiver: Receiver, superuser: Any) -> None:
    receiver.answers = [410]
    await gateway.succeeded("k")
    await gateway.worker().run_due()
    row = await delivery_row(superuser)
    assert (row["status"], row["attempts"], row["last_error"]) == ("dead", 1, "http_410")


async def test_redirects_are_not_followed(gateway: Gateway, receiver: Receiver, superuser: Any) -> None:
    receiver.answers = [302]
    receiver.answer_headers = {"Location": receiver.url + "/elsewhere"}
    await gateway.succeeded("k")
    await gateway.worker().run_due()
    assert len(receiver.received) == 1
    assert (await delivery_row(superuser))["last_error"] == "http_302"


async def test_a_slow_receiver_times_out(gateway: Gateway, receiver: Receiver, superuser: Any) -> None:
    receiver.hold()
    await gateway.succeeded("k")
    await gateway.worker(webhook_timeout_seconds=0.1).run_due()
    assert (await attempts(superuser))[0]["error"] == "timeout"


async def test_an_answer_without_end_is_cut_off(gateway: Gateway, receiver: Receiver, superuser: Any) -> None:
    receiver.answer_body = b"x" * 10_000_000
    await gateway.succeeded("k")
    await gateway.worker().run_due()
    assert (await attempts(superuser))[0]["response_body"] == "x" * 4096


@pytest.mark.parametrize(("url", "error"), [
    ("http://127.0.0.1:1/", "connection_refused"), ("http://name.invalid/", "name_not_resolved"),
])  # fmt: skip
async def test_what_can_not_be_reached(gateway: Gateway, superuser: Any, url: str, error: str) -> None:
    await gateway.succeeded("k")
    await superuser.execute("UPDATE webhook_deliveries SET url = $1", url)
    await gateway.worker().run_due()
    assert (await attempts(superuser))[0]["error"] == error


async def test_two_workers_never_deliver_one_claim_twice(gateway: Gateway, receiver: Receiver, superuser: Any) -> None:
    await superuser.execute("UPDATE fraud_rules SET is_active = false")
    await asyncio.gather(*(gateway.succeeded(f"key-{number}") for number in range(60)))
    workers = [gateway.worker(webhook_concurrency=7) for _ in range(4)]
    running = [asyncio.create_task(worker.run()) for worker in workers]
    await receiver.wait_for(60)
    await until(superuser, "SELECT count(*) = 60 FROM webhook_deliveries WHERE status = 'delivered'")
    for worker in workers:
        worker.stop()
    await asyncio.gather(*running)
    assert len({received.headers["X-MockPay-Delivery"] for received in receiver.received}) == 60
    assert len(receiver.received) == 60


async def test_racing_claims_share_the_work(gateway: Gateway, superuser: Any) -> None:
    await superuser.execute("UPDATE fraud_rules SET is_active = false")
    await asyncio.gather(*(gateway.succeeded(f"key-{number}") for number in range(20)))
    racing = await asyncio.gather(*(claim(gateway, limit=20) for _ in range(8)))
    taken = [claimed.id for claimed_by_one in racing for claimed in claimed_by_one]
    assert len(taken) == len(set(taken)) == 20


async def test_a_claim_holds_until_its_lease_ends(gateway: Gateway, superuser: Any) -> None:
    await gateway.succeeded("k")
    assert len(await claim(gateway)) == 1
    assert await claim(gateway) == []
    row = await delivery_row(superuser)
    assert (row["status"], row["attempts"]) == ("pending", 1)
    assert row["next_attempt_at"] - row["claimed_at"] == LEASE


async def test_a_worker_frozen_past_its_lease_can_not_overwrite_the_winner(gateway: Gateway, superuser: Any) -> None:
    await gateway.succeeded("k")
    [frozen] = await claim(gateway)
    await expire_waits(superuser)
    [winner] = await claim(gateway)
    assert winner.attempt == 2
    assert await settle(gateway, winner, 200)
    assert not await settle(gateway, frozen, 500)
    row = await delivery_row(superuser)
    assert (row["status"], row["last_error"]) == ("delivered", None)
    logged = [(a["attempt"], a["response_status"], a["error"]) for a in await attempts(superuser)]
    assert logged == [(1, None, "worker_lost"), (2, 200, None)]


async def test_a_frozen_worker_can_not_settle_while_the_winner_is_sending(gateway: Gateway, superuser: Any) -> None:
    await gateway.succeeded("k")
    [frozen] = await claim(gateway)
    await expire_waits(superuser)
    [winner] = await claim(gateway)
    assert not await settle(gateway, frozen, 200)
    assert await settle(gateway, winner, 500)
    assert (await delivery_row(superuser))["status"] == "pending"


async def test_a_delivery_that_kills_its_worker_dies_at_the_limit(gateway: Gateway, superuser: Any) -> None:
    await gateway.succeeded("k")
    for number in (1, 2, 3):
        [claimed] = await claim(gateway)
        assert claimed.attempt == number
        await expire_waits(superuser)  # and its worker was never heard of again
    assert await claim(gateway) == []
    row = await delivery_row(superuser)
    assert (row["status"], row["attempts"], row["last_error"]) == ("dead", 3, "worker_lost")
    assert [a["error"] for a in await attempts(superuser)] == ["worker_lost"] * 3


async def test_one_host_gets_no_more_than_its_share(gateway: Gateway, receiver: Receiver, superuser: Any) -> None:
    await superuser.execute("UPDATE fraud_rules SET is_active = false")
    await asyncio.gather(*(gateway.succeeded(f"key-{number}") for number in range(12)))
    receiver.hold()
    worker = gateway.worker(webhook_concurrency=10, webhook_concurrency_per_host=3)
    running = asyncio.create_task(worker.run())
    await receiver.wait_for(3)
    await until_polled(superuser, 3)  # and could have overstepped the limit
    assert len(receiver.received) == 3
    receiver.gate.set()
    await receiver.wait_for(12)
    worker.stop()
    await running
    assert receiver.most_at_once == 3


async def test_stopping_drains(gateway: Gateway, receiver: Receiver, superuser: Any) -> None:
    receiver.hold()
    await gateway.succeeded("k")
    worker = gateway.worker()
    running = asyncio.create_task(worker.run())
    await receiver.wait_for(1)
    worker.stop()
    # That something does not end has no sign but time.
    assert not (await asyncio.wait([running], timeout=0.05))[0]
    receiver.gate.set()
    await running
    assert (await delivery_row(superuser))["status"] == "delivered"


async def test_a_worker_that_is_cancelled_ends_also_if_it_is_just_woken(gateway: Gateway, superuser: Any) -> None:
    worker = gateway.worker()
    running = asyncio.create_task(worker.run())
    await until_polled(superuser)  # and it rests
    worker.wake()
    running.cancel()
    await asyncio.wait([running], timeout=3)
    assert running.cancelled()


async def test_a_worker_survives_the_loss_of_its_connections(
    gateway: Gateway, receiver: Receiver, superuser: Any
) -> None:
    worker = gateway.worker()
    running = asyncio.create_task(worker.run())
    connections = "pg_stat_activity WHERE usename = 'mockpay_application'"
    killed: list[int] = []
    for _ in range(2):
        await until(superuser, f"SELECT count(*) > 0 FROM {connections} AND pid <> ALL ($1)", killed)
        rows = await superuser.fetch(f"SELECT pid, pg_terminate_backend(pid) FROM {connections}")
        killed += [row["pid"] for row in rows]
    await eventually(lambda: gateway.succeeded("k"))
    await receiver.wait_for(1)
    worker.stop()
    await running


async def test_outside_development_private_addresses_are_refused_at_connection_time(
    gateway: Gateway, superuser: Any
) -> None:
    from mockpay.webhooks.address import AddressGuard

    await gateway.succeeded("k")
    guard = AddressGuard(allow_private=False)
    for number, host in enumerate(("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"), 1):
        await superuser.execute(
            "UPDATE webhook_deliveries SET url = $1, max_attempts = 9, next_attempt_at = now()",
            f"http://{host}:{gateway.receiver.port}/",
        )
        assert await gateway.worker(guard=guard).run_due() == 1
        assert (await attempts(superuser))[number - 1]["error"] == "address_refused", host
    assert gateway.receiver.received == []


async def eventually(act: Any) -> None:
    from mockpay.errors import DatabaseUnavailable

    async with asyncio.timeout(15):
        while True:
            try:
                await act()
            except DatabaseUnavailable:
                await asyncio.sleep(0.05)
            else:
                return
