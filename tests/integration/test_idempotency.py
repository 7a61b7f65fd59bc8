"""One key, one charge: whatever is repeated, in parallel or later."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from mockpay.context import Context
from mockpay.housekeeping import clean_once
from mockpay.idempotency import store
from tests.support.plans import generic_plan

BODY = {"amount": 50, "currency": "USD", "webhook_url": "http://127.0.0.1:9/hook"}

EVER = datetime(1970, 1, 1, tzinfo=UTC)

pytestmark = pytest.mark.usefixtures("api_key")


async def create(client: httpx.AsyncClient, key: str = "k", body: dict[str, Any] = BODY) -> httpx.Response:
    return await client.post("/api/payments", json=body, headers={"Idempotency-Key": key})


async def count(superuser: Any, table: str) -> int:
    found: int = await superuser.fetchval(f"SELECT count(*) FROM {table}")
    return found


async def test_fifty_parallel_creates_with_one_key(client: httpx.AsyncClient, superuser: Any) -> None:
    answers = await asyncio.gather(*(create(client) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum(answer.headers.get("Idempotent-Replayed") == "true" for answer in answers) == 49
    assert await count(superuser, "payments") == 1
    assert await count(superuser, "audit_log") == 1


async def test_another_body_under_the_same_key(client: httpx.AsyncClient, superuser: Any) -> None:
    first = await create(client)
    other = await create(client, body={**BODY, "amount": 51})
    assert other.status_code == 422
    assert other.json()["code"] == "idempotency_key_reused"
    assert (await client.get(f"/api/payments/{first.json()['id']}")).json() == first.json()
    assert await count(superuser, "payments") == 1


async def test_the_same_request_spelled_differently_is_a_repeat(client: httpx.AsyncClient) -> None:
    first = await create(client)
    again = await create(client, body={"currency": "usd", "amount": "50.00", "webhook_url": BODY["webhook_url"]})
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.content == first.content


async def test_a_replay_answers_what_was_answered_then(client: httpx.AsyncClient) -> None:
    first = await create(client)
    await client.post(f"/api/payments/{first.json()['id']}/simulate", json={"status": "success"})
    again = await create(client)
    assert again.content == first.content
    assert again.json()["status"] == "pending"


async def test_a_repeat_costs_no_fraud_count(client: httpx.AsyncClient) -> None:
    for _ in range(10):
        assert (await create(client)).json()["status"] == "pending"
    statuses = [(await create(client, f"other-{number}")).json()["status"] for number in range(5)]
    assert statuses == ["pending"] * 4 + ["flagged"]


async def test_a_flagged_answer_is_replayed_too(client: httpx.AsyncClient, superuser: Any) -> None:
    body = {**BODY, "amount": 200_000}
    first, again = await create(client, body=body), await create(client, body=body)
    assert first.json()["status"] == "flagged"
    assert again.content == first.content
    assert await count(superuser, "webhook_deliveries") == 1


async def test_a_request_that_failed_validation_stores_nothing(client: httpx.AsyncClient, superuser: Any) -> None:
    assert (await create(client, body={**BODY, "amount": -1})).status_code == 400
    assert await count(superuser, "idempotency_keys") == 0
    assert (await create(client)).status_code == 201


@pytest.mark.parametrize("has_faults", [False, True])
@pytest.mark.parametrize("path", ["simulate", "refund"])
async def test_transitions_take_a_key_too(
    client: httpx.AsyncClient, superuser: Any, path: str, has_faults: bool
) -> None:
    """With a rule for faults the webhook of the change asks it first."""
    if has_faults:
        rule = {"fault": "reset", "probability": 0}
        assert (await client.post("/api/faults", json=rule)).status_code == 201
    payment_id = (await create(client)).json()["id"]
    body: dict[str, Any] = {"status": "success"}
    if path == "refund":
        await client.post(f"/api/payments/{payment_id}/simulate", json=body)
        body = {"refund_amount": 5}
    before = await count(superuser, "audit_log")
    url, headers = f"/api/payments/{payment_id}/{path}", {"Idempotency-Key": "transition"}
    answers = await asyncio.gather(*(client.post(url, json=body, headers=headers) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    answers.append(await client.post(url, json=body, headers=headers))
    assert len({answer.content for answer in answers}) == 1
    assert answers[-1].headers["Idempotent-Replayed"] == "true"
    assert await count(superuser, "audit_log") == before + 1


async def test_a_refused_transition_leaves_its_key_free(client: httpx.AsyncClient) -> None:
    payment_id = (await create(client)).json()["id"]
    headers = {"Idempotency-Key": "refund"}
    url = f"/api/payments/{payment_id}/refund"
    assert (await client.post(url, json={"refund_amount": 5}, headers=headers)).status_code == 409
    await client.post(f"/api/payments/{payment_id}/simulate", json={"status": "success"})
    assert (await client.post(url, json={"refund_amount": 5}, headers=headers)).status_code == 200


async def test_a_key_that_created_can_not_refund(client: httpx.AsyncClient) -> None:
    payment_id = (await create(client)).json()["id"]
    response = await client.post(
        f"/api/payments/{payment_id}/refund", json={"refund_amount": 5}, headers={"Idempotency-Key": "k"}
    )
    assert response.json()["code"] == "idempotency_key_reused"


@pytest.mark.parametrize(("key", "code"), [
    (None, "idempotency_key_missing"), (b"", "invalid_request"), (b"a" * 256, "invalid_request"),
    (b"\xc3\xa4", "invalid_request"), (b"a\tb", "invalid_request"),
])  # fmt: skip
async def test_a_key_that_is_missing_or_malformed(client: httpx.AsyncClient, key: bytes | None, code: str) -> None:
    headers: list[tuple[bytes, bytes]] = [] if key is None else [(b"Idempotency-Key", key)]
    response = await client.post("/api/payments", json=BODY, headers=headers)
    assert response.status_code == 400
    assert response.json()["code"] == code


async def test_the_longest_key(client: httpx.AsyncClient) -> None:
    assert (await create(client, "~" * 255)).status_code == 201


async def test_spaces_around_a_key_do_not_count(client: httpx.AsyncClient, superuser: Any) -> None:
    first = await create(client, "k")
    for key in ("k ", "  k", " k   "):
        again = await client.post("/api/payments", json=BODY, headers=[(b"Idempotency-Key", key.encode())])
        assert (again.content, again.headers.get("Idempotent-Replayed")) == (first.content, "true")
    assert await count(superuser, "payments") == 1
    blank = await client.post("/api/payments", json=BODY, headers=[(b"Idempotency-Key", b"   ")])
    assert (blank.status_code, blank.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(("hours", "age", "is_free"), [
    (720, "721 hours", True), (720, "719 hours", False), (1, "61 minutes", True), (0, "100 years", False),
])  # fmt: skip
async def test_a_key_is_free_again_after_its_time(
    client: httpx.AsyncClient, context: Context, superuser: Any, hours: int, age: str, is_free: bool
) -> None:
    first = await create(client)
    await superuser.execute(f"UPDATE idempotency_keys SET created_at = now() - interval '{age}'")
    await clean_once(replace(context, settings=replace(context.settings, idempotency_hours=hours)))
    again = await create(client, body={**BODY, "amount": 7})
    assert again.status_code == (201 if is_free else 422)
    assert (await client.get(f"/api/payments/{first.json()['id']}")).status_code == 200, "the payment stays"


async def test_keys_are_forgotten_in_small_steps_along_their_index(
    client: httpx.AsyncClient, context: Context, superuser: Any
) -> None:
    await create(client)
    await superuser.execute(
        "INSERT INTO idempotency_keys (tenant_id, key, fingerprint, answer_status, answer_body, created_at) "
        "SELECT id, 'old ' || number, sha256('x'), 201, 'x', now() - interval '1 year' "
        "FROM tenants, generate_series(1, 2500) AS number"
    )
    async with context.database.connection() as connection:
        since, counts = EVER, []
        for _ in range(4):
            count_of_step, latest = await store.forget(connection, since=since, age=timedelta(days=1))
            since = latest or since
            counts.append(count_of_step)
    assert counts == [1000, 1000, 500, 0]
    assert await count(superuser, "idempotency_keys") == 1
    await superuser.execute(
        "INSERT INTO idempotency_keys (tenant_id, key, fingerprint, answer_status, answer_body, created_at) "
        "SELECT id, 'new ' || number, sha256('x'), 201, 'x', now() FROM tenants, generate_series(1, 20000) AS number"
    )
    await superuser.execute("ANALYZE idempotency_keys")
    plan = await generic_plan(superuser, store._FORGET_SQL, "'-infinity'", "'1 day'")
    assert "Index Scan using idempotency_keys_in_time" in plan, plan


async def test_a_key_from_the_version_before_gets_its_answer(client: httpx.AsyncClient, superuser: Any) -> None:
    """Its fingerprint is as that version made it: of every field, also those that were not given."""
    first = await create(client, body={"amount": 49.99, "currency": "USD"})
    old = b'["create",{"amount":49.99,"currency":"USD","description":null,"metadata":null,"webhook_url":null}]'
    await superuser.execute("UPDATE idempotency_keys SET fingerprint = sha256($1), fingerprint_version = 1", old)
    body = {"amount": 49.99, "currency": "USD"}
    again = await create(client, body=body)
    assert (again.content, again.headers.get("Idempotent-Replayed")) == (first.content, "true")
    assert (await create(client, body={**body, "amount": 50})).json()["code"] == "idempotency_key_reused"
