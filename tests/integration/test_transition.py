"""Payments that change together: each as if it were alone, and exact whatever another process does meanwhile."""

import asyncio
import uuid
from collections import Counter
from typing import Any

import httpx
import pytest

from mockpay.context import Context
from mockpay.errors import ApiError
from mockpay.idempotency.model import Answer, keyed_request
from mockpay.payments import transition_store as store
from mockpay.payments.model import Change, Fail, Refund, Succeed, TriggeredBy
from mockpay.payments.requests import RefundPayment
from mockpay.payments.transition import Transition, decide, move_together
from mockpay.payments.transition_store import Moved
from mockpay.payments.views import payment_view
from mockpay.postgres.pool import Connection, Database
from mockpay.settings import Settings
from mockpay.tenants import service as tenants
from mockpay.tenants.model import Email, Registration, Tenant
from mockpay.types import Amount
from tests.integration.conftest import ADMIN_KEY, open_client
from tests.support.gateway import Gateway, check_payloads, register
from tests.support.waiting import until_blocked


def transition(tenant: Tenant, payment_id: uuid.UUID, change: Change, key: str = "", said: bytes = b"") -> Transition:
    return Transition(
        tenant_id=tenant.id, payment_id=payment_id, change=change, triggered_by=TriggeredBy.SIMULATE_API,
        keyed=keyed_request(key, said.decode(), RefundPayment(Amount("1"))) if key else None, view=payment_view,
    )  # fmt: skip


def told(answer: Answer | ApiError | None) -> str:
    if isinstance(answer, ApiError):
        return answer.code
    if answer is None:
        return "undecided"
    return "replayed" if answer.replayed else str(answer.status)


async def test_each_of_a_batch_gets_its_own_outcome(gateway: Gateway, context: Context, superuser: Any) -> None:
    tenant = gateway.tenant
    other = (await tenants.register(context, Registration("T", Email("other@example.com")))).tenant
    one, two, three, four = [(await gateway.create(f"k{number}")).id for number in range(4)]
    done = (await gateway.succeeded("done")).id
    await move_together(context, [transition(tenant, four, Fail(), "before", b"x")])
    batch = [
        transition(tenant, one, Succeed()), transition(tenant, one, Fail()), transition(tenant, done, Succeed()),
        transition(tenant, uuid.uuid4(), Succeed()), transition(other, two, Succeed()),
        transition(tenant, done, Refund(Amount("51"), None)), transition(tenant, two, Succeed(), "a"),
        transition(tenant, three, Succeed(), "a"), transition(tenant, four, Fail(), "before", b"x"),
        transition(tenant, four, Fail(), "before", b"y"), transition(tenant, done, Refund(Amount("50"), None)),
    ]  # fmt: skip
    before = await superuser.fetchval("SELECT count(*) FROM audit_log")
    assert [told(answer) for answer in await move_together(context, batch)] == [
        "200", "undecided", "invalid_transition", "not_found", "not_found", "invalid_request", "200", "undecided",
        "replayed", "idempotency_key_reused", "200",
    ]  # fmt: skip
    assert await superuser.fetchval("SELECT count(*) FROM audit_log") == before + 3
    events = await superuser.fetch("SELECT event FROM webhook_deliveries WHERE payment_id = $1 ORDER BY id", done)
    assert [row["event"] for row in events] == ["payment.success", "payment.refunded"]
    await check_payloads(superuser)
    found = await superuser.fetch("SELECT status FROM payments WHERE id = ANY ($1) ORDER BY id", [one, two, three])
    assert [row["status"] for row in found] == ["success", "success", "pending"]


async def moved(context: Context, connection: Connection, asked: Transition) -> Moved:
    key = asked.keyed.key if asked.keyed else None
    [known] = await store.facts(connection, [(*asked.place, key)])
    decided = decide(context, asked, known, context.clock.now())
    assert isinstance(decided, Moved)
    return decided


@pytest.mark.parametrize("meanwhile", [
    "UPDATE payments SET description = 'of a PATCH'", "UPDATE payments SET updated_at = updated_at",
    "UPDATE payments SET status = 'failed', failure_code = 'card_declined'",
])  # fmt: skip
async def test_what_was_read_must_still_be_so_when_it_is_written(
    gateway: Gateway, context: Context, database: Database, superuser: Any, meanwhile: str
) -> None:
    """One payment changed since, the other did not."""
    changed, same = await gateway.create("k"), await gateway.create("k2")
    async with database.connection() as connection:
        both = [
            await moved(context, connection, transition(gateway.tenant, payment.id, Succeed(), payment.idempotency_key + "s"))
            for payment in (changed, same)
        ]  # fmt: skip
        await superuser.execute(f"{meanwhile} WHERE id = $1", changed.id)
        assert await store.write(connection, both, [], context.clock.now()) == {(gateway.tenant.id, same.id)}
    assert await superuser.fetchval("SELECT count(*) FROM audit_log WHERE payment_id = $1", changed.id) == 1
    assert await superuser.fetchval("SELECT count(*) FROM webhook_deliveries") == 1
    assert await superuser.fetchval("SELECT count(*) FROM idempotency_keys WHERE key LIKE '%s'") == 1


async def test_one_that_is_being_changed_is_waited_for_and_then_passed_over(
    gateway: Gateway, context: Context, database: Database, superuser: Any
) -> None:
    payment = await gateway.create("k")
    async with database.connection() as connection:
        change = await moved(context, connection, transition(gateway.tenant, payment.id, Succeed()))
        async with superuser.transaction():
            await superuser.execute("UPDATE payments SET description = 'of a PATCH'")
            writing = asyncio.create_task(store.write(connection, [change], [], context.clock.now()))
            await until_blocked(superuser, 1)
            assert not writing.done()
        assert await writing == set()


async def test_a_key_that_was_taken_meanwhile_moves_nothing(
    gateway: Gateway, context: Context, database: Database, superuser: Any
) -> None:
    payment, other = await gateway.create("k"), await gateway.create("k2")
    async with database.connection() as connection:
        change = await moved(context, connection, transition(gateway.tenant, payment.id, Succeed(), "key"))
        await move_together(context, [transition(gateway.tenant, other.id, Succeed(), "key")])
        assert await store.write(connection, [change], [], context.clock.now()) == set()
    assert await superuser.fetchval("SELECT status FROM payments WHERE id = $1", payment.id) == "pending"


async def test_two_processes_and_one_key(database_url: str, superuser: Any) -> None:
    """Retries of one request while it is under way, by both, in batches and alone; and edits in between."""
    settings = Settings(rate_limit_tier="unlimited", admin_key=ADMIN_KEY)
    await superuser.execute("UPDATE fraud_rules SET is_active = false")
    async with open_client(database_url, settings) as one, open_client(database_url, settings) as other:
        other.headers["Authorization"] = f"Bearer {await register(one)}"

        async def flow(number: int) -> list[httpx.Response]:
            created = await one.post(
                "/api/payments", json={"amount": 5, "currency": "USD"}, headers={"Idempotency-Key": f"c{number}"}
            )
            path = f"/api/payments/{created.json()['id']}"
            key = {"Idempotency-Key": f"s{number}"}
            *answers, edited = await asyncio.gather(
                *(
                    client.post(f"{path}/simulate", json={"status": "success"}, headers=key)
                    for client in (one, other) for _ in range(3)
                ),
                one.patch(path, json={"description": "edited"}),
            )  # fmt: skip
            assert edited.status_code == 200
            after = (await other.get(path)).json()
            assert (after["status"], after["description"]) == ("success", "edited")
            return answers

        flows = await asyncio.gather(*(flow(number) for number in range(20)))
    for answers in flows:
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    assert await superuser.fetchval("SELECT count(*) FROM audit_log WHERE new_status = 'success'") == 20


async def test_two_processes_and_many_payments(database_url: str, superuser: Any) -> None:
    settings = Settings(rate_limit_tier="unlimited", admin_key=ADMIN_KEY)
    await superuser.execute("UPDATE fraud_rules SET is_active = false")
    async with open_client(database_url, settings) as one, open_client(database_url, settings) as other:
        other.headers["Authorization"] = f"Bearer {await register(one)}"
        created = await asyncio.gather(*(
            one.post("/api/payments", json={"amount": 5, "currency": "USD"}, headers={"Idempotency-Key": f"k{number}"})
            for number in range(40)
        ))  # fmt: skip
        answers = await asyncio.gather(*(
            client.post(f"/api/payments/{payment.json()['id']}/simulate", json={"status": status})
            for payment in created for client, status in ((one, "success"), (other, "failed"))
        ))  # fmt: skip
        assert Counter(answer.status_code for answer in answers) == {200: 40, 409: 40}
        trails = await asyncio.gather(*(one.get(f"/api/payments/{each.json()['id']}/audit") for each in created))
    assert {(trail.json()["total_events"], trail.json()["intact"]) for trail in trails} == {(2, True)}


async def test_a_payment_of_a_tenant_with_faults_asks_the_rules(gateway: Gateway, client: httpx.AsyncClient) -> None:
    key = await register(client, "faulty@example.com")
    await client.post("/api/faults", json={"fault": "bad_signature", "event": "payment.success"})
    created = await client.post(
        "/api/payments", json={"amount": 5, "currency": "USD", "webhook_url": "http://127.0.0.1:9/"},
        headers={"Idempotency-Key": key[:9]},
    )  # fmt: skip
    path = f"/api/payments/{created.json()['id']}"
    await client.post(f"{path}/simulate", json={"status": "success"})
    [delivery] = (await client.get(f"{path}/deliveries")).json()["deliveries"]
    assert delivery["fault"] == "bad_signature"
