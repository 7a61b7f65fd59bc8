"""Payments that are created together: each as if it were alone, and exact whatever another process does meanwhile."""

import asyncio
from collections import Counter
from typing import Any

import httpx
import pytest

from mockpay.context import Context
from mockpay.errors import ApiError, InvalidRequest
from mockpay.idempotency.model import Answer, keyed_request
from mockpay.payments import creation_store as store
from mockpay.payments.creation import Creation, create_together, decide
from mockpay.payments.requests import CreatePayment
from mockpay.postgres.pool import Database
from mockpay.settings import Settings
from mockpay.tenants import service as tenants
from mockpay.tenants.model import Email, Registration, Tenant
from mockpay.types import Amount, Currency
from mockpay.webhooks.address import WebhookUrl
from tests.integration.conftest import ADMIN_KEY, open_client
from tests.support.gateway import check_payloads, register


def creation(tenant: Tenant, key: str, *, amount: str = "50", problem: ApiError | None = None) -> Creation:
    request = CreatePayment(Amount(amount), Currency("USD"), webhook_url=WebhookUrl("http://127.0.0.1:9/x"))
    return Creation(tenant, request, keyed_request(key, "create", request), problem)


def told(answer: Answer | ApiError) -> str:
    if isinstance(answer, ApiError):
        return answer.code
    return "replayed" if answer.replayed else ("flagged" if b'"status":"flagged"' in answer.body else "pending")


@pytest.fixture
async def others(context: Context) -> list[Tenant]:
    return [
        (await tenants.register(context, Registration("T", Email(f"t{number}@example.com")))).tenant
        for number in range(2)
    ]


async def test_each_of_a_batch_gets_its_own_outcome(
    context: Context, tenant: Tenant, others: list[Tenant], superuser: Any
) -> None:
    refused = InvalidRequest([])
    await create_together(context, [creation(tenant, "before")])
    batch = [
        creation(tenant, "a"), creation(others[0], "a"), creation(tenant, "a"), creation(tenant, "a", amount="51"),
        creation(tenant, "b", problem=refused), creation(tenant, "before"), creation(tenant, "before", amount="1"),
        creation(tenant, "before", problem=refused), creation(others[1], "rich", amount="200000"), creation(tenant, "b"),
        creation(others[0], "rich", amount="200000"),
    ]  # fmt: skip
    assert [told(answer) for answer in await create_together(context, batch)] == [
        "pending", "pending", "replayed", "idempotency_key_reused", "invalid_request", "replayed", "idempotency_key_reused",
        "replayed", "flagged", "pending", "flagged",
    ]  # fmt: skip
    for table in ("payments", "audit_log", "idempotency_keys"):
        assert await superuser.fetchval(f"SELECT count(*) FROM {table}") == 6
    assert (
        await superuser.fetchval("SELECT string_agg(event, ' ') FROM webhook_deliveries")
        == "fraud.detected fraud.detected"
    )
    await check_payloads(superuser)


async def test_the_sixth_of_a_batch_is_flagged_and_those_of_other_currencies_are_not(
    context: Context, tenant: Tenant, superuser: Any
) -> None:
    await superuser.execute("UPDATE fraud_rules SET currency = 'USD' WHERE rule_type = 'velocity'")
    euros = CreatePayment(Amount("5"), Currency("EUR"))
    in_euros = [Creation(tenant, euros, keyed_request(f"e{number}", "create", euros), None) for number in range(7)]
    in_dollars = [creation(tenant, f"k{number}") for number in range(7)]
    answers = await create_together(context, [each for pair in zip(in_euros, in_dollars, strict=True) for each in pair])
    assert [told(answer) for answer in answers[1::2]] == ["pending"] * 5 + ["flagged"] * 2
    assert [told(answer) for answer in answers[::2]] == ["pending"] * 7


async def test_what_was_counted_must_still_be_so_when_it_is_written(
    context: Context, tenant: Tenant, others: list[Tenant], database: Database, superuser: Any
) -> None:
    keys = [(tenant.id, "late"), (others[0].id, "late")]
    async with database.connection() as connection:
        facts = await store.facts(connection, [key[0] for key in keys], keys, context.clock.now())
        await create_together(context, [creation(tenant, "meanwhile")])
        new = [*(await new_payments(context, [creation(tenant, "late"), creation(others[0], "late")]))]
        written = await store.write(connection, new, facts.counters, context.clock.now())
    assert written == {keys[1]}  # nobody created one of the other tenant's
    assert await superuser.fetchval("SELECT count(*) FROM payments WHERE idempotency_key = 'late'") == 1


async def new_payments(context: Context, asked: list[Creation]) -> list[store.NewPayment]:
    async with context.database.connection() as connection:
        now = context.clock.now()
        keys = sorted(each.key for each in asked)
        facts = await store.facts(connection, sorted({key[0] for key in keys}), keys, now)
        return list((await decide(context, connection, asked, facts, now)).values())


async def test_velocity_is_exact_for_two_processes_that_create_in_batches(database_url: str) -> None:
    settings = Settings(rate_limit_tier="unlimited", admin_key=ADMIN_KEY)
    async with open_client(database_url, settings) as one, open_client(database_url, settings) as other:
        other.headers["Authorization"] = f"Bearer {await register(one)}"
        body = {"amount": 5, "currency": "USD"}
        answers = await asyncio.gather(*(
            client.post("/api/payments", json=body, headers={"Idempotency-Key": f"{number % 60}"})
            for number in range(120) for client in (one, other)
        ))  # fmt: skip
    assert {answer.status_code for answer in answers} == {201}
    by_key = {answer.json()["idempotency_key"]: answer.json()["status"] for answer in answers}
    assert Counter(by_key.values()) == {"pending": 5, "flagged": 55}
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 60


@pytest.mark.usefixtures("api_key")
async def test_a_flagged_payment_of_a_tenant_with_faults_asks_the_rules(client: httpx.AsyncClient) -> None:
    rule = (
        await client.post("/api/faults", json={"fault": "bad_signature", "event": "fraud.detected", "times": 1})
    ).json()
    body = {"amount": 200_000, "currency": "USD", "webhook_url": "http://127.0.0.1:9/"}
    created = [
        (await client.post("/api/payments", json=body, headers={"Idempotency-Key": key})).json() for key in ("a", "b")
    ]
    faults = []
    for payment in created:
        [delivery] = (await client.get(f"/api/payments/{payment['id']}/deliveries")).json()["deliveries"]
        faults.append((delivery["event"], delivery["fault_rule"]))
    assert faults == [("fraud.detected", rule["id"]), ("fraud.detected", None)]


async def test_a_rule_that_counts_from_now_on_is_exact_at_once(
    context: Context, tenant: Tenant, superuser: Any
) -> None:
    await superuser.execute("UPDATE fraud_rules SET is_active = false")
    await create_together(context, [creation(tenant, f"free {number}") for number in range(8)])
    await superuser.execute("UPDATE fraud_rules SET is_active = true")
    assert [told(answer) for answer in await create_together(context, [creation(tenant, "counted")])] == ["flagged"]
