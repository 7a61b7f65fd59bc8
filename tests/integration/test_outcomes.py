"""Payments that fail with a reason, and payments that are decided by themselves."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from mockpay.context import Context
from mockpay.housekeeping import clean_once
from mockpay.payments import outcome_store
from mockpay.payments.declines import DECLINES, FailureCode
from mockpay.payments.scheduler import settle_due
from mockpay.tenants.service import Credentials
from tests.support.gateway import Gateway
from tests.support.plans import generic_plan

pytestmark = pytest.mark.usefixtures("api_key")


async def create(client: httpx.AsyncClient, key: str = "k", **fields: Any) -> dict[str, Any]:
    response = await client.post(
        "/api/payments", json={"amount": 5, "currency": "USD", **fields}, headers={"Idempotency-Key": key}
    )
    assert response.status_code == 201, response.text
    payment: dict[str, Any] = response.json()
    return payment


async def read(client: httpx.AsyncClient, payment: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get(f"/api/payments/{payment['id']}")).json()
    return found


async def settle_all(context: Context) -> int:
    count = 0
    while settled := await settle_due(context):
        count += settled
    return count


async def test_a_failure_shows_everywhere(
    gateway: Gateway, client: httpx.AsyncClient, credentials: Credentials
) -> None:
    """Each of them: on the payment, in the audit trail, in the webhook."""
    client.headers["Authorization"] = f"Bearer {credentials.api_key}"
    for code, decline in DECLINES.items():
        payment = await create(client, code, webhook_url=gateway.receiver.url)
        body = {"status": "failed", "failure_code": code}
        failed = (await client.post(f"/api/payments/{payment['id']}/simulate", json=body)).json()
        assert (failed["failure_code"], failed["failure_message"]) == (code, decline.message)
        trail = (await client.get(f"/api/payments/{payment['id']}/audit")).json()
        assert trail["history"][-1]["metadata"]["failure_code"] == code
        assert trail["intact"] is True
        await gateway.worker().run_due()
        sent = json.loads(gateway.receiver.received[-1].body)
        assert (sent["failure_code"], sent["failure_message"]) == (code, decline.message)


async def test_an_unknown_failure_code_is_named_with_those_there_are(client: httpx.AsyncClient) -> None:
    payment = await create(client)
    path = f"/api/payments/{payment['id']}/simulate"
    for body in ({"status": "failed", "failure_code": "rusty"}, {"status": "success", "failure_code": "lost_card"}):
        response = await client.post(path, json=body)
        assert [fault["field"] for fault in response.json()["details"]] == ["failure_code"]


async def test_an_outcome_comes_by_itself_once(client: httpx.AsyncClient, context: Context, superuser: Any) -> None:
    outcome = {"status": "failed", "failure_code": "expired_card", "after_seconds": 3600}
    payment = await create(client, webhook_url="http://127.0.0.1:9/", outcome=outcome)
    assert payment["status"] == "pending"
    assert payment["outcome"] | {"seed": 0, "due_at": ""} == {
        "status": "failed", "failure_code": "expired_card", "due_at": "", "seed": 0,
    }  # fmt: skip
    assert await settle_all(context) == 0
    await superuser.execute("UPDATE payments SET outcome_due_at = now()")
    settled = await asyncio.gather(*(settle_due(context) for _ in range(10)))
    assert sum(settled) == 1
    assert (await read(client, payment))["failure_code"] == "expired_card"
    trail = (await client.get(f"/api/payments/{payment['id']}/audit")).json()
    assert [entry["triggered_by"] for entry in trail["history"]] == ["create_api", "scenario"]
    assert trail["intact"] is True
    assert await superuser.fetchval("SELECT count(*) FROM webhook_deliveries WHERE event = 'payment.failed'") == 1


async def test_test_values_decide_at_once(client: httpx.AsyncClient, context: Context, superuser: Any) -> None:
    await superuser.execute("UPDATE fraud_rules SET is_active = false")
    table = (await client.get("/api/test-values")).json()
    assert {row["failure_code"] for row in table["failure_codes"]} == set(FailureCode)
    rows = [*table["payment_methods"], *table["amounts"]]
    payments = []
    for number, row in enumerate(rows):
        fields = {name: row[name] for name in ("payment_method", "amount") if name in row}
        payments.append(await create(client, f"k{number}", **fields))
    assert await settle_all(context) == len(rows)
    for row, payment in zip(rows, payments, strict=True):
        found = await read(client, payment)
        assert (found["status"], found["failure_code"]) == (row["status"], row["failure_code"])
        assert found.get("payment_method") == row.get("payment_method")


async def test_who_is_faster_decides(client: httpx.AsyncClient, context: Context) -> None:
    payment = await create(client, outcome={"status": "success"})
    path = f"/api/payments/{payment['id']}/simulate"
    answers = await asyncio.gather(
        *(client.post(path, json={"status": "failed"}) for _ in range(5)),
        *(settle_due(context) for _ in range(5)),
    )
    won = [answer.status_code == 200 if isinstance(answer, httpx.Response) else bool(answer) for answer in answers]
    assert won.count(True) == 1
    assert (await client.get(f"/api/payments/{payment['id']}/audit")).json()["total_events"] == 2
    assert await settle_all(context) == 0


async def test_a_flagged_payment_has_no_outcome(client: httpx.AsyncClient, context: Context) -> None:
    payment = await create(client, amount=100_001, outcome={"status": "success"})
    assert (payment["status"], "outcome" in payment) == ("flagged", False)
    assert await settle_all(context) == 0


async def test_what_is_left_to_chance_is_repeatable(client: httpx.AsyncClient, superuser: Any) -> None:
    """The seed that is returned gives the same again under the same key, also to another tenant."""
    await superuser.execute("UPDATE fraud_rules SET is_active = false")
    wish = {"success": 0.4, "failed": {"lost_card": 0.4}, "after_seconds": [1, 9]}
    first = [await create(client, f"k{number}", outcome=wish) for number in range(12)]
    assert len({payment["outcome"]["seed"] for payment in first}) == 12
    registered = await client.post("/api/auth/register", json={"name": "Other", "email": "other@example.com"})
    client.headers["Authorization"] = f"Bearer {registered.json()['api_key']}"
    for number, payment in enumerate(first):
        again = await create(client, f"k{number}", outcome=wish | {"seed": payment["outcome"]["seed"]})
        for field in ("status", "failure_code", "seed"):
            assert again["outcome"][field] == payment["outcome"][field]


async def test_a_replay_does_not_choose_again(client: httpx.AsyncClient) -> None:
    wish = {"success": 0.5}
    assert await create(client, outcome=wish) == await create(client, outcome=wish)


async def test_a_payment_without_them_looks_as_ever(client: httpx.AsyncClient) -> None:
    assert not {"payment_method", "outcome"} & set(await create(client))


async def test_the_queue_of_outcomes_has_its_index(superuser: Any) -> None:
    await superuser.execute("SET enable_seqscan = off")  # a table of no rows needs no index
    assert "Index Scan using payments_outcome_due" in await generic_plan(superuser, outcome_store._DUE_SQL, 32)


UNREADABLE = "ALTER TABLE payments DROP CONSTRAINT payments_outcome_failed_has_code"
POISON = {
    "one that the database refuses to change": (
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'never'; END $$;"
        "CREATE TRIGGER refuse BEFORE UPDATE ON payments FOR EACH ROW WHEN (OLD.idempotency_key = 'poison') "
        "EXECUTE FUNCTION refuse()",
        "DROP TRIGGER refuse ON payments", "RaiseError",
    ),
    "one that can't be read": (
        f"{UNREADABLE}; UPDATE payments SET outcome_failure_code = 'unheard of' WHERE idempotency_key = 'poison'",
        "UPDATE payments SET outcome_failure_code = NULL WHERE idempotency_key = 'poison'", "ValueError",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", POISON)
async def test_an_outcome_that_can_not_be_settled_is_put_off_and_shown_and_the_others_go_on(
    client: httpx.AsyncClient, context: Context, superuser: Any, kind: str
) -> None:
    poisoning, cure, error = POISON[kind]
    poisoned = await create(client, "poison", outcome={"status": "success"})
    registered = await client.post("/api/auth/register", json={"name": "Other", "email": "other@example.com"})
    others = {"Authorization": f"Bearer {registered.json()['api_key']}"}
    body = {"amount": 5, "currency": "USD", "outcome": {"status": "success"}}
    for number in range(4):
        await client.post("/api/payments", json=body, headers=others | {"Idempotency-Key": f"k{number}"})
    await superuser.execute(poisoning)
    assert await settle_all(context) == 5
    assert await superuser.fetchval("SELECT count(*) FROM payments WHERE status = 'success'") == 4
    put_off = "SELECT failures, error, extract(epoch FROM retry_at - now())::float8 FROM put_off_outcomes"
    for failures, seconds in ((1, 2), (2, 4), (3, 8)):
        row = await superuser.fetchrow(put_off)
        assert row[:2] == (failures, error)
        assert seconds - 1 < row[2] <= seconds
        assert await settle_all(context) == 0, "it waits"
        await superuser.execute("UPDATE put_off_outcomes SET retry_at = now()")
        assert await settle_all(context) == 1
    assert "mockpay_outcomes_put_off 1.0" in (await client.get("/metrics")).text
    await superuser.execute(cure)
    await superuser.execute("UPDATE put_off_outcomes SET retry_at = now()")
    await settle_all(context)
    assert (await read(client, poisoned))["status"] == "success"
    assert await superuser.fetchval("SELECT count(*) FROM put_off_outcomes") == 0


async def test_after_many_failures_it_is_tried_once_an_hour(
    client: httpx.AsyncClient, context: Context, superuser: Any
) -> None:
    payment = await create(client, outcome={"status": "success"})
    await superuser.execute(
        "INSERT INTO put_off_outcomes SELECT tenant_id, id, 1000000, 'Error', now() - interval '1 hour' FROM payments"
    )
    [row] = await superuser.fetch("SELECT tenant_id, id FROM payments")
    async with context.database.connection() as connection:
        await outcome_store.put_off(connection, (row["tenant_id"], row["id"]), "Error")
    wait = "SELECT extract(epoch FROM retry_at - now())::float8 FROM put_off_outcomes"
    assert 3590 < await superuser.fetchval(wait) <= 3600
    assert (await read(client, payment))["status"] == "pending"


async def test_an_outcome_that_waits_for_a_lock_holds_up_no_other_tenant(
    client: httpx.AsyncClient, context: Context, superuser: Any
) -> None:
    """Somebody holds the rules of one tenant for longer than a batch waits."""
    await client.post("/api/faults", json={"fault": "drop", "every": 1000000})
    await create(client, outcome={"status": "success"})
    registered = await client.post("/api/auth/register", json={"name": "Other", "email": "other@example.com"})
    client.headers["Authorization"] = f"Bearer {registered.json()['api_key']}"
    other = await create(client, outcome={"status": "success"})
    async with superuser.transaction():
        await superuser.execute("SELECT FROM fault_rules FOR UPDATE")
        assert await settle_due(context) == 2
        assert (await read(client, other))["status"] == "success"
    assert await superuser.fetchval("SELECT error FROM put_off_outcomes") == "LockNotAvailableError"


async def test_one_that_was_put_off_and_then_decided_is_forgotten(
    client: httpx.AsyncClient, context: Context, superuser: Any
) -> None:
    payment = await create(client, outcome={"status": "success", "after_seconds": 3600})
    await superuser.execute("INSERT INTO put_off_outcomes SELECT tenant_id, id, 1, 'Error', now() FROM payments")
    await clean_once(context)
    assert await superuser.fetchval("SELECT count(*) FROM put_off_outcomes") == 1
    await client.post(f"/api/payments/{payment['id']}/simulate", json={"status": "failed"})
    await clean_once(context)
    assert await superuser.fetchval("SELECT count(*) FROM put_off_outcomes") == 0


async def test_many_outcomes_are_settled_together(client: httpx.AsyncClient, context: Context, superuser: Any) -> None:
    """By several processes at once, and each once."""
    for number in range(50):
        await create(client, f"k{number}", webhook_url="http://127.0.0.1:9/", outcome={"status": "failed"})
    due = await superuser.fetchval("SELECT count(*) FROM payments WHERE outcome_due_at IS NOT NULL")
    assert sum(await asyncio.gather(*(settle_all(context) for _ in range(3)))) == due
    events = await superuser.fetchrow(
        "SELECT count(DISTINCT payment_id), count(*) FROM webhook_deliveries WHERE event = 'payment.failed'"
    )
    assert tuple(events) == (due, due)
