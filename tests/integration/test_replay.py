"""Deliveries as their sender and the administrator see them: lists, dead letters, replays, retention."""

import asyncio
from collections import Counter
from typing import Any

import httpx
import pytest

from mockpay.app import open_parts, running
from mockpay.context import Context
from mockpay.housekeeping import clean_once
from mockpay.payments.model import Payment
from mockpay.settings import Settings
from mockpay.tenants import service as tenants
from mockpay.tenants.model import Email, Preferences, Registration
from mockpay.webhooks.address import WebhookUrl
from tests.integration.conftest import ADMIN_KEY, open_client
from tests.support.fakes import Receiver, open_receiver
from tests.support.gateway import Gateway, bearer

DELIVERIES, DLQ = "/api/webhooks/deliveries", "/api/admin/dlq"
ADMIN = bearer(ADMIN_KEY)


@pytest.fixture
async def http(client: httpx.AsyncClient, credentials: tenants.Credentials) -> httpx.AsyncClient:
    """Of the gateway's tenant."""
    client.headers["Authorization"] = f"Bearer {credentials.api_key}"
    return client


async def dead(gateway: Gateway, key: str) -> Payment:
    payment = await gateway.succeeded(key)
    gateway.receiver.answers = [410]
    await gateway.worker().run_due()
    return payment


async def ids(http: httpx.AsyncClient, path: str, **query: Any) -> list[str]:
    """Over all pages."""
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await http.get(path, params=query | cursor)).json()
        found += [row.get("id") or row["job_id"] for row in page.get("data") or page.get("failed_jobs") or []]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


async def test_the_list_of_deliveries(gateway: Gateway, http: httpx.AsyncClient) -> None:
    for number in range(3):
        await gateway.succeeded(f"delivered-{number}")
    await gateway.worker().run_due()
    await dead(gateway, "dead")
    await gateway.succeeded("pending")
    page = (await http.get(DELIVERIES, params={"limit": 3})).json()
    assert (page["total"], page["has_more"]) == (3, True)
    assert [row["status"] for row in page["data"]] == ["pending", "dead", "delivered"]
    assert [len(row["attempt_log"]) for row in page["data"]] == [0, 1, 1]
    everything = await ids(http, DELIVERIES, limit=2)
    assert everything == sorted(everything, reverse=True)
    assert len(everything) == 5
    for status, count in (("pending", 1), ("dead", 1), ("delivered", 3)):
        assert len(await ids(http, DELIVERIES, limit=2, status=status)) == count


@pytest.mark.parametrize("query", ["status=done", "limit=0", "cursor=x", "stauts=dead"])
async def test_malformed_queries(shared_client: httpx.AsyncClient, query: str) -> None:
    response = await shared_client.get(f"{DELIVERIES}?{query}")
    assert [fault["field"] for fault in response.json()["details"]] == [query.partition("=")[0]]


async def test_a_replay_goes_to_the_current_url(gateway: Gateway, http: httpx.AsyncClient) -> None:
    payment = await dead(gateway, "k")
    [delivery_id] = await ids(http, DELIVERIES)
    async with open_receiver() as new_receiver:
        changed = await http.patch(f"/api/payments/{payment.id}", json={"webhook_url": new_receiver.url})
        assert changed.status_code == 200
        replayed = await http.post(f"{DELIVERIES}/{delivery_id}/replay")
        assert replayed.status_code == 202
        assert replayed.json() | {"attempt_log": None} == replayed.json() | {
            "id": delivery_id, "status": "pending", "webhook_url": new_receiver.url, "attempts": 1, "max_attempts": 4,
            "finished_at": None, "attempt_log": None,
        }  # fmt: skip
        assert len(replayed.json()["attempt_log"]) == 1
        await gateway.worker().run_due()
        first, second = gateway.receiver.received[-1], new_receiver.received[-1]
    assert second.body == first.body
    assert second.headers["X-MockPay-Delivery"] == first.headers["X-MockPay-Delivery"] == delivery_id
    assert [each.headers["X-MockPay-Attempt"] for each in (first, second)] == ["1", "2"]
    [delivery] = (await http.get(f"/api/payments/{payment.id}/deliveries")).json()["deliveries"]
    assert delivery["status"] == "delivered"
    assert [attempt["url"] for attempt in delivery["attempt_log"]] == [gateway.receiver.url, new_receiver.url]


async def test_a_delivered_one_can_be_replayed_and_a_pending_one_can_not(
    gateway: Gateway, http: httpx.AsyncClient
) -> None:
    await gateway.succeeded("k")
    [delivery_id] = await ids(http, DELIVERIES)
    path = f"{DELIVERIES}/{delivery_id}/replay"
    refused = await http.post(path)
    assert (refused.status_code, refused.json()["code"]) == (409, "not_replayable")
    await gateway.worker().run_due()
    answers = await asyncio.gather(*(http.post(path) for _ in range(10)))
    assert Counter(answer.status_code for answer in answers) == {202: 1, 409: 9}
    assert await gateway.worker().run_due() == 1
    assert len(gateway.receiver.received) == 2


async def test_the_backoff_starts_anew_after_a_replay(
    gateway: Gateway, http: httpx.AsyncClient, superuser: Any
) -> None:
    gateway.receiver.answers = [500] * 6
    await gateway.succeeded("k")
    [delivery_id] = await ids(http, DELIVERIES)
    waits = []
    for attempt in range(1, 7):
        await superuser.execute("UPDATE webhook_deliveries SET next_attempt_at = now() WHERE status = 'pending'")
        assert await gateway.worker().run_due() == 1
        row = await superuser.fetchrow("SELECT status, next_attempt_at - now() AS wait FROM webhook_deliveries")
        waits.append(round(row["wait"].total_seconds()) if row["status"] == "pending" else None)
        if attempt == 3:
            assert (await http.post(f"{DELIVERIES}/{delivery_id}/replay")).status_code == 202
    assert waits == [2, 4, None, 2, 4, None]
    assert [received.headers["X-MockPay-Attempt"] for received in gateway.receiver.received] == list("123456")


async def test_without_a_url_there_is_nothing_to_replay_to(gateway: Gateway, http: httpx.AsyncClient) -> None:
    payment = await dead(gateway, "k")
    [delivery_id] = await ids(http, DELIVERIES)
    await http.patch(f"/api/payments/{payment.id}", json={"webhook_url": None})
    assert (await http.post(f"{DELIVERIES}/{delivery_id}/replay")).json()["code"] == "not_replayable"
    assert (await http.post(f"{DLQ}/replay", headers=ADMIN)).json()["skipped"] == 1
    url = WebhookUrl("http://127.0.0.1:9/default")
    await tenants.set_preferences(gateway.context, gateway.tenant, Preferences(url))
    assert (await http.post(f"{DELIVERIES}/{delivery_id}/replay")).json()["webhook_url"] == url


async def test_the_dead_letter_queue(gateway: Gateway, http: httpx.AsyncClient, credentials: Any) -> None:
    assert (await http.get(DLQ, headers=ADMIN)).json() | {"message": ""} == {
        "total": 0, "message": "", "failed_jobs": [], "next_cursor": None,
    }  # fmt: skip
    payments = [await dead(gateway, f"k{number}") for number in range(4)]
    await gateway.succeeded("alive")
    page = (await http.get(DLQ, params={"limit": 3}, headers=ADMIN)).json()
    assert page["total"] == 4
    assert [job["payment_id"] for job in page["failed_jobs"]] == [str(payment.id) for payment in payments[:0:-1]]
    job = page["failed_jobs"][0]
    assert job["payload"]["payment_id"] == job["payment_id"]
    assert (job["event"], job["last_error"], job["attempts"]) == ("payment.success", "http_410", 1)
    assert credentials.api_key not in str(page)
    assert credentials.webhook_secret not in str(page)
    http.headers.update(ADMIN)
    assert len(await ids(http, DLQ, limit=1)) == 4


async def test_filters_of_the_dead_letter_queue(gateway: Gateway, http: httpx.AsyncClient, context: Context) -> None:
    mine = await dead(gateway, "k")
    other = await tenants.register(context, Registration("Other", Email("other@example.com")))
    theirs = await dead(Gateway(context, other.tenant, gateway.receiver), "k")
    http.headers.update(ADMIN)
    for query, found in (
        ({"tenant_id": mine.tenant_id}, 1), ({"payment_id": theirs.id}, 1), ({"event": "payment.success"}, 2),
        ({"event": "payment.failed"}, 0), ({"last_error": "http_410"}, 2), ({"last_error": "timeout"}, 0),
        ({"tenant_id": mine.tenant_id, "payment_id": theirs.id}, 0), ({"failed_to": "2026-01-01T00:00:00Z"}, 0),
        ({"failed_from": "2026-01-01T00:00:00Z"}, 2),
    ):  # fmt: skip
        page = (await http.get(DLQ, params={name: str(value) for name, value in query.items()})).json()
        assert (page["total"], len(page["failed_jobs"])) == (found, found), query
    replayed = await http.post(f"{DLQ}/replay", json={"tenant_id": str(other.tenant.id)})
    assert (replayed.status_code, replayed.json()["replayed"]) == (202, 1)
    assert (await http.get(DLQ)).json()["failed_jobs"][0]["tenant_id"] == str(mine.tenant_id)


async def test_racing_bulk_replays_queue_each_once(gateway: Gateway, http: httpx.AsyncClient) -> None:
    for number in range(5):
        await dead(gateway, f"k{number}")
    answers = await asyncio.gather(*(http.post(f"{DLQ}/replay", headers=ADMIN) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {202}
    assert sum(answer.json()["replayed"] for answer in answers) == 5
    assert sum(answer.json()["skipped"] for answer in answers) == 0


@pytest.mark.parametrize("content", [b"", b"{}"])
async def test_a_bulk_replay_without_a_filter_is_of_all(
    gateway: Gateway, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr("mockpay.deliveries.service.REPLAYED_AT_ONCE", 2)
    for number in range(5):
        await dead(gateway, f"k{number}")
    headers = ADMIN | ({"Content-Type": "application/json"} if content else {})
    replayed = await http.post(f"{DLQ}/replay", content=content, headers=headers)
    assert (replayed.json()["replayed"], replayed.json()["skipped"]) == (5, 0)
    assert await gateway.worker().run_due() == 5
    assert (await http.get(DLQ, headers=ADMIN)).json()["total"] == 0


async def test_the_admin_replays_a_dead_one_only(gateway: Gateway, http: httpx.AsyncClient) -> None:
    await gateway.succeeded("k")
    await gateway.worker().run_due()
    [delivered] = await ids(http, DELIVERIES)
    refused = await http.post(f"{DLQ}/{delivered}/replay", headers=ADMIN)
    assert (refused.status_code, refused.json()["code"]) == (409, "not_replayable")
    await dead(gateway, "k2")
    [job_id] = await ids(http, DELIVERIES, status="dead")
    assert (await http.post(f"{DLQ}/{job_id}/replay", headers=ADMIN)).status_code == 202
    assert await gateway.worker().run_due() == 1


@pytest.mark.parametrize(("days", "kept"), [(30, 3), (0, 4)])
async def test_delivered_webhooks_are_kept_for_a_time_and_dead_ones_for_ever(
    gateway: Gateway, superuser: Any, receiver: Receiver, days: int, kept: int
) -> None:
    """Four of 31 days ago (one delivered, one that was delivered after long retries, a dead and a pending one)."""
    for key, answer in (("old", 200), ("late", 200), ("dead", 410)):
        await gateway.succeeded(key)
        receiver.answers = [answer]
        await gateway.worker().run_due()
    await gateway.succeeded("pending")
    await superuser.execute(
        "UPDATE webhook_deliveries SET finished_at = finished_at - interval '31 days' WHERE payment_id <> "
        "(SELECT id FROM payments WHERE idempotency_key = 'late')"
    )
    context = gateway.context
    settings = Settings(webhook_retention_days=days)
    forgotten = await clean_once(
        Context(
            settings=settings, database=context.database, address_guard=context.address_guard,
            started_at=context.started_at,
        )
    )  # fmt: skip
    assert forgotten == 4 - kept
    assert await superuser.fetchval("SELECT count(*) FROM webhook_deliveries") == kept
    assert await superuser.fetchval("SELECT count(*) FROM delivery_attempts") == kept - 1


async def test_the_housekeeping_forgets_windows_that_are_over(database_url: str, superuser: Any) -> None:
    async with open_client(database_url, Settings()) as http:
        await http.get("/api/auth/me")
    await superuser.execute("INSERT INTO rate_limits VALUES ('over', 1, now())")
    assert await superuser.fetchval("SELECT count(*) FROM rate_limits") == 2
    async with open_parts(Settings(), database_url) as (context, worker), running(context, worker):
        while await superuser.fetchval("SELECT count(*) FROM rate_limits") > 1:  # noqa: ASYNC110 - in the database
            await asyncio.sleep(0.01)
