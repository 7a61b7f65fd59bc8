"""The timeline: what happened, in order, with every fault, and nobody else's."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import pytest

from mockpay.context import Context
from mockpay.housekeeping import clean_once
from mockpay.journal import store as journal
from mockpay.journal.buffer import ENTRIES_MAX
from mockpay.journal.model import RequestEntry
from mockpay.payments.model import Refund
from mockpay.postgres.pool import Database
from mockpay.settings import Settings
from mockpay.types import Amount
from tests.integration.conftest import ADMIN_KEY, open_client
from tests.support.gateway import Gateway, bearer, register
from tests.support.logs import captured_logs
from tests.support.waiting import until_blocked, until_true

BODY = {"amount": 50, "currency": "USD"}
KEPT = Settings(rate_limit_tier="unlimited", admin_key=ADMIN_KEY)


async def timeline(client: httpx.AsyncClient, path: str = "/api/timeline", **query: Any) -> list[dict[str, Any]]:
    answer = await client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    entries: list[dict[str, Any]] = answer.json()["data"]
    return entries


async def create(client: httpx.AsyncClient, key: str = "k", **headers: str) -> httpx.Response:
    return await client.post("/api/payments", json=BODY, headers={"Idempotency-Key": key, **headers})


def told(entry: dict[str, Any]) -> str:
    match entry["type"]:
        case "request":
            return f"{entry['method']} {entry['operation']} {entry['status']}"
        case "status_change":
            return f"{entry['old_status']} {entry['new_status']}"
        case "webhook":
            return f"queued {entry['event']}"
        case _:
            return f"attempt {entry['attempt']} {entry['response_status']}"


async def test_of_a_payment_from_its_creation_to_its_refund(
    gateway: Gateway, client: httpx.AsyncClient, credentials: Any
) -> None:
    client.headers["Authorization"] = f"Bearer {credentials.api_key}"
    gateway.receiver.answers = [500]
    created = await client.post(
        "/api/payments", json={**BODY, "webhook_url": gateway.receiver.url}, headers={"Idempotency-Key": "k"}
    )
    path = f"/api/payments/{created.json()['id']}"
    await client.post(f"{path}/simulate", json={"status": "success"})
    await gateway.worker().run_due()
    await client.post(f"{path}/refund", json={"refund_amount": 50})
    await client.get(path)
    await create(client, "other")
    entries = await timeline(client, f"{path}/timeline")
    attempts = [entry for entry in entries if entry["type"] == "webhook_attempt"]  # by the fake clock, of last January
    assert [told(entry) for entry in attempts] == ["attempt 1 500"]
    assert [told(entry) for entry in entries if entry not in attempts] == [
        "POST create 201", "None pending", "POST simulate 200", "pending success", "queued payment.success",
        "POST refund 200", "success refunded", "queued payment.refunded", "GET get 200",
    ]  # fmt: skip
    assert {entry["payment_id"] for entry in entries[1:]} <= {created.json()["id"], None}
    whole = await timeline(client)
    assert [told(entry) for entry in whole if entry not in entries] == ["POST create 201", "None pending"]


@pytest.mark.usefixtures("api_key")
async def test_faults_of_requests_and_why_there_are_two_payments(client: httpx.AsyncClient) -> None:
    rule = (
        await client.post("/api/faults", json={"fault": "error; status=503", "operation": "create", "times": 1})
    ).json()
    await create(client)
    await create(client, **{"X-MockPay-Fault": "malformed"})
    await create(client)
    await create(client, "new-key")
    asked = [entry for entry in await timeline(client) if entry.get("operation") == "create"]
    assert [(each["idempotency_key"], each["status"], each["replayed"], each["fault"], each["fault_rule"]) for each in asked] == [
        ("k", 503, False, "error; status=503", rule["id"]), ("k", 201, False, "malformed", None),
        ("k", 201, True, None, None), ("new-key", 201, False, None, None),
    ]  # fmt: skip
    assert all(each["request_id"] and each["path"] == "/api/payments" for each in asked)
    assert [each["payment_id"] for each in asked] == [None] * 4
    payments = (await client.get("/api/payments")).json()["data"]
    of_first = await timeline(client, f"/api/payments/{payments[1]['id']}/timeline")
    assert [told(entry) for entry in of_first] == [
        "POST create 503", "POST create 201", "None pending", "POST create 201"
    ]  # fmt: skip


@pytest.mark.usefixtures("api_key")
async def test_what_is_refused_is_seen_and_looking_leaves_no_trace(client: httpx.AsyncClient) -> None:
    await client.get("/api/payments/x")
    await client.post("/api/payments", content=b"{", headers={b"Idempotency-Key": "ü\x7f".encode() * 300})
    await client.get("/api/no%00where/" + "x" * 3000)
    entries = await timeline(client)
    assert [told(entry) for entry in entries] == ["GET get 400", "POST create 415", "GET None 404"]
    assert len(entries[2]["path"]) == 1000
    assert await timeline(client) == entries
    key = await register(client, "other@example.com")
    assert await timeline(client) == []
    assert (await client.get("/api/timeline", headers=bearer(key))).json()["total"] == 0


async def test_pages_go_through_every_entry_once(gateway: Gateway, client: httpx.AsyncClient, credentials: Any) -> None:
    client.headers["Authorization"] = f"Bearer {credentials.api_key}"
    await client.post("/api/faults", json={"fault": "duplicate; copies=9"})
    payment = await gateway.succeeded("k")
    gateway.context.clock.advance(1)  # type: ignore[attr-defined]  # the tests' own clock
    await gateway.worker().run_due()
    await gateway.change(payment, Refund(Amount("20"), None))
    whole = await timeline(client)
    assert len(whole) == 1 + 2 + 1 + 10 + 2
    for path in ("/api/timeline", f"/api/payments/{payment.id}/timeline"):
        entries = await timeline(client, path)
        seen: list[Any] = []
        query: dict[str, Any] = {"limit": 3}
        while True:
            page = (await client.get(path, params=query)).json()
            seen += page["data"]
            if not page["has_more"]:
                break
            query["cursor"] = page["next_cursor"]
        assert seen == entries
    moment = whole[3]["at"]
    assert await timeline(client, at_from=moment) == whole[3:]
    assert await timeline(client, at_to=moment) == whole[:3]
    assert await timeline(client, at_from=moment, at_to=moment) == []
    copies = [entry["copy"] for entry in whole if entry["type"] == "webhook_attempt"]
    assert copies == list(range(10))
    assert {entry["fault"] for entry in whole if "delivery_id" in entry} == {"duplicate; copies=9"}


async def test_copies_of_one_moment_are_each_seen_once(
    gateway: Gateway, client: httpx.AsyncClient, credentials: Any
) -> None:
    """Two deliveries that begin together, with many copies each: no page may end where another begins."""
    client.headers["Authorization"] = f"Bearer {credentials.api_key}"
    await client.post("/api/faults", json={"fault": "duplicate; copies=9"})
    for key in ("one", "other"):
        await gateway.succeeded(key)
    gateway.context.clock.advance(1)  # type: ignore[attr-defined]  # the tests' own clock
    await gateway.worker().run_due()  # by a clock that stands still again: at the very same microsecond
    for limit in (3, 4, 7):
        seen: list[Any] = []
        query: dict[str, Any] = {"limit": limit}
        while True:
            page = (await client.get("/api/timeline", params=query)).json()
            seen += [(each["delivery_id"], each["copy"]) for each in page["data"] if each["type"] == "webhook_attempt"]
            if not page["has_more"]:
                break
            query["cursor"] = page["next_cursor"]
        assert len(seen) == len(set(seen)) == 20


async def test_requests_through_another_process_are_there_too(database_url: str) -> None:
    async with open_client(database_url, KEPT) as one, open_client(database_url, KEPT) as other:
        key = await register(one)
        other.headers["Authorization"] = f"Bearer {key}"
        await asyncio.gather(*(each.get("/api/payments") for each in (one, other) for _ in range(20)))
        entries = await timeline(one)
    assert [told(entry) for entry in entries] == ["GET list 200"] * 40
    assert [entry["at"] for entry in entries] == sorted(entry["at"] for entry in entries)


async def test_what_was_being_written_when_it_was_told_to_stop_is_not_lost(context: Context, superuser: Any) -> None:
    for number in range(3):
        context.journal.add(request_entry(context, number))
    holder = superuser.transaction()
    await holder.start()
    await superuser.execute("LOCK TABLE requests")
    writing = asyncio.create_task(context.journal.write(context.database))
    await until_blocked(superuser, 1)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await holder.rollback()
    await context.journal.write(context.database)
    assert await superuser.fetchval("SELECT count(*) FROM requests") == 3


async def test_what_is_written_again_is_there_once(context: Context, superuser: Any) -> None:
    entries = [request_entry(context, number)() for number in range(3)]
    await journal.write(context.database, entries[:2])
    await journal.write(context.database, entries)
    assert await superuser.fetchval("SELECT count(*) FROM requests") == 3


async def test_of_too_many_the_oldest_are_given_up(context: Context, database: Database, superuser: Any) -> None:
    for number in range(ENTRIES_MAX):
        context.journal.add(request_entry(context, number))
    async with superuser.transaction():
        await superuser.execute("LOCK TABLE requests")
        writing = asyncio.create_task(context.journal.write(database))
        await until_blocked(superuser, 1)
        for number in range(5):
            context.journal.add(request_entry(context, ENTRIES_MAX + number))
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    await context.journal.write(database)
    rows = await superuser.fetch("SELECT request_id FROM requests")
    assert {int(row["request_id"]) for row in rows} == set(range(5, ENTRIES_MAX + 5))


def request_entry(context: Context, number: int) -> Callable[[], RequestEntry]:
    entry = RequestEntry(
        tenant_id=UUID(int=1),
        id=context.new_id(),
        started_at=context.clock.now(),
        request_id=str(number),
        method="GET",
        path="/api/payments",
        operation="list",
        payment_id=None,
        idempotency_key=None,
        status=200,
        replayed=False,
        duration_milliseconds=1,
        fault=None,
        fault_rule=None,
    )
    return lambda: entry


async def test_what_is_in_the_air_when_a_process_ends_is_written(database_url: str, superuser: Any) -> None:
    async with open_client(database_url, KEPT) as one:
        await register(one)
        await one.get("/api/payments")
    assert await superuser.fetchval("SELECT count(*) FROM requests") == 1


async def test_requests_are_forgotten_after_a_time(gateway: Gateway, client: httpx.AsyncClient, superuser: Any) -> None:
    await register(client)
    for _ in range(2):
        await client.get("/api/payments")
    assert len(await timeline(client)) == 2
    await superuser.execute(
        "UPDATE requests SET started_at = now() - interval '25 hours' WHERE id = (SELECT id FROM requests LIMIT 1)"
    )
    await clean_once(gateway.context)
    assert len(await timeline(client)) == 1


@pytest.mark.parametrize("settings", [Settings(rate_limit_tier="unlimited", timeline_hours=0)])
async def test_requests_need_not_be_kept(client: httpx.AsyncClient) -> None:
    await register(client)
    await create(client)
    assert [told(entry) for entry in await timeline(client)] == ["None pending"]


@pytest.mark.usefixtures("api_key")
async def test_wrong_queries(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/timeline?at_from=yesterday&limit=0&cursor=x&since=1")
    assert {fault["field"] for fault in answer.json()["details"]} == {"at_from", "limit", "cursor", "since"}


async def test_a_lost_database_loses_requests_only_beyond_a_bound(client: httpx.AsyncClient, superuser: Any) -> None:
    await register(client)
    await superuser.execute("ALTER TABLE requests RENAME TO away")
    with captured_logs(json_lines=True) as output:
        await client.get("/api/payments")
        await until_true(lambda: "can't write requests for the timeline" in output.getvalue())
    await superuser.execute("ALTER TABLE away RENAME TO requests")
    await client.get("/api/payments")
    assert await timeline(client)
