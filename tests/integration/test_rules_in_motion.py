"""Fault rules come and go while payments are created: what each payment is due stays exact."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import msgspec
import pytest

from mockpay.context import Context
from mockpay.faults import service as faults
from mockpay.faults.requests import CreateFault, FaultText
from mockpay.idempotency.model import Answer, keyed_request
from mockpay.payments import service as payments
from mockpay.payments.creation import create_together, create_under_locks
from mockpay.payments.velocity import Memory
from mockpay.settings import Settings
from mockpay.tenants import service as tenants
from mockpay.tenants.model import Email, Registration, Tenant
from tests.integration.conftest import ADMIN_KEY, open_client
from tests.integration.test_creation import create, creation, told
from tests.support.counting import open_counting_database
from tests.support.gateway import check_payloads, register
from tests.support.waiting import until_blocked

NEVER = {"fault": "drop", "event": "fraud.detected", "probability": 0}
FLAGGED = {"amount": 200_000, "currency": "USD", "webhook_url": "http://127.0.0.1:9/"}
CLIENTS, PAYMENTS = 24, 25


@pytest.fixture
async def processes(database_url: str) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Two, for one tenant."""
    settings = Settings(rate_limit_tier="unlimited", admin_key=ADMIN_KEY)
    async with open_client(database_url, settings) as one, open_client(database_url, settings) as other:
        other.headers["Authorization"] = f"Bearer {await register(one)}"
        yield [one, other]


@asynccontextmanager
async def toggled(client: httpx.AsyncClient) -> AsyncIterator[None]:
    """Makes a fault rule and deletes it, again and again, until the end of this."""
    done = asyncio.Event()

    async def toggle() -> None:
        while not done.is_set():
            made = await client.post("/api/faults", json=NEVER)
            assert made.status_code == 201, made.text
            assert (await client.delete(f"/api/faults/{made.json()['id']}")).status_code == 204

    toggling = asyncio.create_task(toggle())
    yield
    done.set()
    await toggling


async def test_each_flagged_payment_has_one_webhook_while_a_fault_rule_comes_and_goes(
    processes: list[httpx.AsyncClient], superuser: Any
) -> None:
    """Each of many clients sends the next as soon as it has its answer, so that batches hold requests of both times."""

    async def shop(client: httpx.AsyncClient, name: str) -> None:
        for number in range(PAYMENTS):
            answer = await client.post("/api/payments", json=FLAGGED, headers={"Idempotency-Key": f"{name} {number}"})
            assert answer.status_code == 201, answer.text

    async with toggled(processes[0]), asyncio.TaskGroup() as group:
        for name in range(CLIENTS):
            group.create_task(shop(processes[name % 2], str(name)))
    counts = await superuser.fetch(
        "SELECT payment.id, count(delivery.id) FROM payments AS payment LEFT JOIN webhook_deliveries AS delivery "
        "ON delivery.payment_id = payment.id GROUP BY 1"
    )
    assert Counter(row["count"] for row in counts) == {1: CLIENTS * PAYMENTS}
    await check_payloads(superuser)


async def test_an_answer_is_of_the_request_that_it_answers_while_a_fault_rule_comes_and_goes(
    processes: list[httpx.AsyncClient],
) -> None:
    """The same keys with different bodies at once: one of the bodies wins, the other is refused."""
    wrong, firsts = [], Counter[str]()

    async def shop(client: httpx.AsyncClient, amount: int, name: str) -> None:
        for number in range(PAYMENTS):
            key, body = f"{name} {number}", {"amount": amount, "currency": "USD"}
            answer = await client.post("/api/payments", json=body, headers={"Idempotency-Key": key})
            assert answer.status_code in (201, 422), answer.text
            if answer.status_code == 201:
                firsts[key] += "Idempotent-Replayed" not in answer.headers
                wrong.extend([key] if answer.json()["amount"] != amount else [])

    async with toggled(processes[0]), asyncio.TaskGroup() as group:
        for name in range(CLIENTS // 2):
            for amount in (1, 2):
                group.create_task(shop(processes[name % 2], amount, str(name)))
    assert wrong == []
    assert set(firsts.values()) == {1}


async def test_of_two_bodies_under_one_key_the_second_is_refused_under_locks_too(
    context: Context, tenant: Tenant
) -> None:
    batch = [creation(tenant, "k"), creation(tenant, "k", amount="51"), creation(tenant, "k")]
    answers = await create_under_locks(context, Memory(), batch)
    assert [told(answer) for answer in answers] == ["pending", "idempotency_key_reused", "replayed"]


async def test_what_is_done_again_under_locks_is_no_repeat_of_what_was_answered(
    context: Context, tenant: Tenant, superuser: Any
) -> None:
    """A key is taken while its batch waits for the locks: the other one of the batch is created once, and not replayed."""
    async with superuser.transaction():
        await superuser.execute("SELECT FROM creation_counters FOR UPDATE")
        creating = asyncio.create_task(
            create_under_locks(context, Memory(), [creation(tenant, "taken"), creation(tenant, "free")])
        )
        await superuser.execute(
            "INSERT INTO idempotency_keys (tenant_id, key, fingerprint, fingerprint_version, answer_status, answer_body, "
            "created_at) VALUES ($1, 'taken', $2, 2, 201, 'x', now())",
            tenant.id, creation(tenant, "taken").keyed.fingerprint,
        )  # fmt: skip
    assert [told(answer) for answer in await creating] == ["replayed", "pending"]
    assert await superuser.fetchval("SELECT count(*) FROM payments") == 1


async def test_a_payment_that_can_not_be_written_makes_no_repeats_of_the_others(
    context: Context, tenant: Tenant, superuser: Any
) -> None:
    """The three are two batches. Of the second one's payments the last is refused by the database."""
    other = (await tenants.register(context, Registration("T", Email("other@example.com")))).tenant
    await faults.create(context, tenant, CreateFault(FaultText("drop"), every=1_000_000))
    await superuser.execute("ALTER TABLE payments ADD CONSTRAINT none_so_large CHECK (amount_minor_units < 20000000)")
    tenant = msgspec.structs.replace(tenant, has_faults=True)
    asked = [(other, "first", "5"), (other, "second", "5"), (tenant, "third", "200000")]
    answers = await asyncio.gather(*(pay(context, *each) for each in asked), return_exceptions=True)
    assert [isinstance(answer, Answer) and not answer.replayed for answer in answers] == [True, True, False]


async def pay(context: Context, tenant: Tenant, key: str, amount: str) -> Answer:
    request = creation(tenant, key, amount=amount).request
    return await payments.create(context, tenant, request, keyed_request(key, "create", request))


async def test_a_rule_that_fires_so_many_times_does_so_over_both_processes(
    processes: list[httpx.AsyncClient], superuser: Any
) -> None:
    """Among flagged payments in batches, and among transitions."""
    for event, times in (("fraud.detected", 7), ("payment.success", 5)):
        rule = {"fault": "bad_signature", "event": event, "times": times}
        assert (await processes[0].post("/api/faults", json=rule)).status_code == 201
    await superuser.execute("UPDATE fraud_rules SET is_active = false WHERE rule_type = 'velocity'")
    created = await asyncio.gather(*(
        client.post("/api/payments", json=body, headers={"Idempotency-Key": f"{number} {name} {kind}"})
        for number in range(10) for name, client in enumerate(processes)
        for kind, body in (("flagged", FLAGGED), ("pending", {**FLAGGED, "amount": 5}))
    ))  # fmt: skip
    pending = [answer.json()["id"] for answer in created if answer.json()["status"] == "pending"]
    moved = await asyncio.gather(*(
        processes[number % 2].post(f"/api/payments/{id_}/simulate", json={"status": "success"})
        for number, id_ in enumerate(pending)
    ))  # fmt: skip
    assert {answer.status_code for answer in moved} == {200}
    suffering = await superuser.fetch(
        "SELECT event, count(*) AS deliveries, count(fault) AS faults FROM webhook_deliveries GROUP BY 1 ORDER BY 1"
    )
    assert [tuple(row) for row in suffering] == [("fraud.detected", 20, 7), ("payment.success", 20, 5)]
    counted = await superuser.fetch("SELECT event, matched, fired FROM fault_rules ORDER BY event")
    assert [tuple(row) for row in counted] == [("fraud.detected", 20, 7), ("payment.success", 20, 5)]


async def test_a_rule_of_requests_is_exact_over_both_processes(processes: list[httpx.AsyncClient]) -> None:
    rule = {"fault": "error; status=418", "operation": "list", "every": 3}
    assert (await processes[0].post("/api/faults", json=rule)).status_code == 201
    answers = await asyncio.gather(*(client.get("/api/payments") for _ in range(30) for client in processes))
    assert Counter(answer.status_code for answer in answers) == {200: 40, 418: 20}
    [shown] = (await processes[1].get("/api/faults")).json()["faults"]
    assert (shown["matched"], shown["fired"]) == (60, 20)


@pytest.mark.parametrize("rules", [1, 100])
async def test_what_a_batch_asks_of_the_database_does_not_grow_with_the_rules(
    database_url: str, context: Context, tenant: Tenant, rules: int
) -> None:
    """A hundred rules that never fire were a hundred statements for each flagged payment, in everybody's way."""
    never = CreateFault(FaultText("drop"), every=1_000_000)
    await faults.replace_all(context, tenant, [never] * rules)
    database = await open_counting_database(database_url, 2)
    counting = replace(context, database=database)
    await create(counting, [creation(tenant, "the first of a connection", amount="200000")])
    database.statements.clear()
    answers = await create(counting, [creation(tenant, f"k{number}", amount="200000") for number in range(19)])
    assert [told(answer) for answer in answers] == ["flagged"] * 19
    assert len(database.statements) == 3
    assert {(rule.matched, rule.fired) for rule in await faults.of_tenant(context, tenant)} == {(20, 0)}
    await database.close()


async def test_a_rule_that_was_asked_meanwhile_is_asked_again(context: Context, tenant: Tenant, superuser: Any) -> None:
    """Between the decision and the writing another process asks the same rule: nothing of this is written."""
    await faults.create(context, tenant, CreateFault(FaultText("drop"), times=1))
    asked = [creation(tenant, "k", amount="200000")]
    async with superuser.transaction():
        await superuser.execute("UPDATE fault_rules SET matched = 1, fired = 1")
        creating = asyncio.create_task(create_together(context, Memory(), asked))
        await until_blocked(superuser, 1)
    assert await creating == [None]
    assert await superuser.fetchval("SELECT count(*) FROM payments") == 0
    [answer] = await create_under_locks(context, Memory(), asked)
    assert isinstance(answer, Answer)
    assert json.loads(answer.body)["status"] == "flagged"
    row = await superuser.fetchrow("SELECT fault, (SELECT matched FROM fault_rules) AS matched FROM webhook_deliveries")
    assert tuple(row) == (None, 2)
