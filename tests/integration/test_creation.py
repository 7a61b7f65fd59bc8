"""Payments that are created together: each as if it were alone, and exact whatever another process does meanwhile."""

import asyncio
import re
from collections import Counter
from dataclasses import replace
from typing import Any

import httpx
import pytest

from mockpay.context import Context
from mockpay.errors import ApiError, InvalidRequest
from mockpay.idempotency.model import Answer, keyed_request
from mockpay.payments import creation_store as store
from mockpay.payments.creation import Creation, Decision, create_together, create_under_locks, decide
from mockpay.payments.requests import CreatePayment
from mockpay.payments.velocity import Memory
from mockpay.postgres.pool import Connection, Database
from mockpay.settings import Settings
from mockpay.tenants import service as tenants
from mockpay.tenants.model import Email, Registration, Tenant
from mockpay.types import Amount, Currency
from mockpay.webhooks.address import WebhookUrl
from tests.integration.conftest import ADMIN_KEY, open_client
from tests.support.fakes import FakeClock
from tests.support.gateway import check_payloads, register
from tests.support.plans import generic_plan


def creation(tenant: Tenant, key: str, *, amount: str = "50", problem: ApiError | None = None) -> Creation:
    request = CreatePayment(Amount(amount), Currency("USD"), webhook_url=WebhookUrl("http://127.0.0.1:9/x"))
    return Creation(tenant.id, request, keyed_request(key, "create", request), problem)


async def create(context: Context, asked: list[Creation], memory: Memory | None = None) -> list[Answer | ApiError]:
    """As a process does it: together, and what another one was faster with under locks."""
    memory = memory or Memory()
    answers = await create_together(context, memory, asked)
    rest = [creation for creation, answer in zip(asked, answers, strict=True) if answer is None]
    under_locks = iter(await create_under_locks(context, memory, rest) if rest else ())
    return [next(under_locks) if answer is None else answer for answer in answers]


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
    await create(context, [creation(tenant, "before")])
    batch = [
        creation(tenant, "a"), creation(others[0], "a"), creation(tenant, "a"), creation(tenant, "a", amount="51"),
        creation(tenant, "b", problem=refused), creation(tenant, "before"), creation(tenant, "before", amount="1"),
        creation(tenant, "before", problem=refused), creation(others[1], "rich", amount="200000"), creation(tenant, "b"),
        creation(others[0], "rich", amount="200000"),
    ]  # fmt: skip
    assert [told(answer) for answer in await create(context, batch)] == [
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
    in_euros = [Creation(tenant.id, euros, keyed_request(f"e{number}", "create", euros), None) for number in range(7)]
    in_dollars = [creation(tenant, f"k{number}") for number in range(7)]
    answers = await create(context, [each for pair in zip(in_euros, in_dollars, strict=True) for each in pair])
    assert [told(answer) for answer in answers[1::2]] == ["pending"] * 5 + ["flagged"] * 2
    assert [told(answer) for answer in answers[::2]] == ["pending"] * 7


async def test_what_was_counted_must_still_be_so_when_it_is_written(
    context: Context, tenant: Tenant, others: list[Tenant], database: Database, superuser: Any
) -> None:
    """There is room for four, and five come meanwhile. Nobody created one of the other tenant's."""
    keys = [(tenant.id, "late"), (others[0].id, "late")]
    async with database.connection() as connection:
        decision = await decided(context, [creation(tenant, "late"), creation(others[0], "late")])
        await create(context, [creation(tenant, f"meanwhile {number}") for number in range(5)])
        assert await written(context, connection, decision) == {keys[1]}
    assert await superuser.fetchval("SELECT count(*) FROM payments WHERE idempotency_key = 'late'") == 1


async def test_what_others_create_undoes_nothing_while_there_is_room_for_it(
    context: Context, tenant: Tenant, database: Database
) -> None:
    async with database.connection() as connection:
        decision = await decided(context, [creation(tenant, "late")])
        await create(context, [creation(tenant, f"meanwhile {number}") for number in range(4)])
        assert await written(context, connection, decision) == {(tenant.id, "late")}
    assert [told(answer) for answer in await create(context, [creation(tenant, "sixth")])] == ["flagged"]


async def decided(context: Context, asked: list[Creation]) -> Decision:
    async with context.database.connection() as connection:
        now = context.clock.now()
        batches = dict(Counter(each.tenant_id for each in asked))
        facts = await store.facts(connection, batches, sorted(each.key for each in asked), now, Memory())
        return await decide(context, connection, asked, facts, now)


async def written(context: Context, connection: Connection, decision: Decision) -> set[store.Key]:
    new = list(decision.new.values())
    return await store.write(connection, new, decision.creations_max, decision.counted, context.clock.now())


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
    await create(context, [creation(tenant, f"free {number}") for number in range(8)])
    await superuser.execute("UPDATE fraud_rules SET is_active = true")
    assert [told(answer) for answer in await create(context, [creation(tenant, "counted")])] == ["flagged"]


async def test_a_rule_that_is_changed_is_counted_anew(context: Context, tenant: Tenant, superuser: Any) -> None:
    """What is remembered of a rule is of the version that was counted by."""
    memory = Memory()
    await superuser.execute("UPDATE fraud_rules SET threshold = 1000 WHERE rule_type = 'velocity'")
    first = [creation(tenant, f"a{number}") for number in range(5)]
    assert [told(answer) for answer in await create(context, first, memory)] == ["pending"] * 5
    await superuser.execute("UPDATE fraud_rules SET threshold = 6 WHERE rule_type = 'velocity'")
    second = [creation(tenant, f"b{number}") for number in range(3)]
    assert [told(answer) for answer in await create(context, second, memory)] == ["pending", "flagged", "flagged"]


async def test_payments_are_not_counted_again_for_each_batch(
    database_url: str, context: Context, tenant: Tenant, superuser: Any
) -> None:
    """Far below the threshold, and far beyond it: what is read does not grow with the payments in the window."""
    memory = Memory()
    clock = context.clock
    assert isinstance(clock, FakeClock)
    for threshold in (1000, 40):
        await superuser.execute("UPDATE fraud_rules SET threshold = $1 WHERE rule_type = 'velocity'", threshold)
        for number in range(10):
            clock.advance(0.001)
            await create(context, [creation(tenant, f"{threshold} {number} {each}") for each in range(10)], memory)
        batches = {tenant.id: 10}
        async with context.database.connection() as connection:
            known = {each.count.rule_id: each for each in memory.known(batches, clock.now())}
            facts = await store.facts(connection, batches, [], clock.now(), Memory())
        assert len(known) == 1
        is_beyond = threshold == 40
        [(rule_id, recent)] = facts.of[tenant.id].recent.items()
        assert recent == (threshold if is_beyond else 100)
        assert (known[rule_id].creations_max >= facts.of[tenant.id].creations) is not is_beyond
        assert (known[rule_id].too_many_until is not None) is is_beyond


async def test_pending_payments_may_fail_and_are_counted_again(
    context: Context, tenant: Tenant, superuser: Any
) -> None:
    """Five that are pending reach the threshold, and one of them fails: there is room for one more."""
    memory = Memory()
    first = [creation(tenant, f"a{number}") for number in range(6)]
    assert [told(answer) for answer in await create(context, first, memory)] == ["pending"] * 5 + ["flagged"]
    await superuser.execute("DELETE FROM webhook_deliveries")
    await superuser.execute(
        "UPDATE payments SET status = 'failed', failure_code = 'card_declined' WHERE idempotency_key IN ('a0', 'a1')"
    )
    assert [told(answer) for answer in await create(context, [creation(tenant, "b")], memory)] == ["pending"]


async def test_many_rules_of_many_tenants_cost_no_more_than_their_number(
    context: Context, tenant: Tenant, others: list[Tenant], superuser: Any
) -> None:
    """Each tenant is compared with its own rules, and not with those of the others in its batch."""
    tenant_ids = [tenant.id, *(each.id for each in others)]
    await superuser.execute(
        "INSERT INTO fraud_rules (id, name, rule_type, threshold, window_secs, tenant_id) "
        "SELECT gen_random_uuid(), 'own', 'velocity', 100, 60, id "
        "FROM unnest($1::uuid[]) AS id, generate_series(1, 200)", tenant_ids,
    )  # fmt: skip
    batch = [creation(each, "k") for each in (tenant, *others)]
    assert [told(answer) for answer in await create(context, batch)] == ["pending"] * 3
    ids = "'{" + ",".join(map(str, tenant_ids)) + "}'"
    arguments = [ids, "now()", *["'{}'"] * 7]
    await generic_plan(superuser, store._FACTS_SQL, *arguments)
    explained = await superuser.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE explained ({', '.join(arguments)})")
    passed_over = sum(int(rows) for rows in re.findall(r'"Rows Removed by Join Filter": (\d+)', explained))
    assert passed_over < 700, explained


async def test_velocity_is_exact_for_two_processes_far_from_the_threshold_and_at_it(
    database_url: str, superuser: Any
) -> None:
    """Here each process remembers what it counted, and has room for what the other one does meanwhile."""
    await superuser.execute("UPDATE fraud_rules SET threshold = 150 WHERE rule_type = 'velocity'")
    settings = Settings(rate_limit_tier="unlimited", admin_key=ADMIN_KEY, workers=2)
    async with open_client(database_url, settings) as one, open_client(database_url, settings) as other:
        other.headers["Authorization"] = f"Bearer {await register(one)}"
        body = {"amount": 5, "currency": "USD"}
        statuses: list[str] = []

        async def shop(client: httpx.AsyncClient, name: int) -> None:
            for number in range(15):
                answer = await client.post("/api/payments", json=body, headers={"Idempotency-Key": f"{name} {number}"})
                statuses.append(answer.json()["status"])

        await asyncio.gather(*(shop(client, name) for name, client in enumerate([one, other] * 8)))
    assert Counter(statuses) == {"pending": 150, "flagged": 90}


async def test_rules_of_other_tenants_are_not_read(
    context: Context, tenant: Tenant, others: list[Tenant], superuser: Any
) -> None:
    """5,000 of them took 54 ms of each batch."""
    await superuser.execute(
        "INSERT INTO fraud_rules (id, name, rule_type, threshold, window_secs, tenant_id) "
        "SELECT gen_random_uuid(), 'theirs', 'velocity', 0, 60, $1 FROM generate_series(1, 5000)",
        others[0].id,
    )
    assert [told(answer) for answer in await create(context, [creation(tenant, "k")])] == ["pending"]
    assert [told(answer) for answer in await create(context, [creation(others[0], "k")])] == ["flagged"]
    ids = f"'{{{tenant.id}}}'"
    arguments = [ids, "now()", *["'{}'"] * 5, ids, "'{k}'"]
    await generic_plan(superuser, store._FACTS_SQL, *arguments)
    explained = await superuser.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE explained ({', '.join(arguments)})")
    passed_over = sum(int(rows) for rows in re.findall(r'"Rows Removed by (?:Join )?Filter": (\d+)', explained))
    assert passed_over < 20, explained


async def test_the_oldest_rule_is_applied_first(context: Context, tenant: Tenant, superuser: Any) -> None:
    """Whatever order they have in their table, and be they the tenant's own or everybody's."""
    for name, owner, made in (
        ("newer", None, "2026-01-02"),
        ("oldest", tenant.id, "2026-01-01"),
        ("newest", tenant.id, "2026-01-03"),
    ):
        await superuser.execute(
            "INSERT INTO fraud_rules (id, name, rule_type, threshold, tenant_id, created_at) "
            "VALUES (gen_random_uuid(), $1, 'amount_limit', 10, $2, $3::text::timestamptz)", name, owner, made,
        )  # fmt: skip
    [answer] = await create(context, [creation(tenant, "k")])
    assert isinstance(answer, Answer)
    assert b'"flag_rule":"oldest"' in answer.body


async def test_unlimited_lifts_velocity_rules_and_no_others(context: Context, tenant: Tenant) -> None:
    lifted = replace(context, settings=replace(context.settings, unlimited=True))
    many = [creation(tenant, f"k{number}") for number in range(8)]
    assert {told(answer) for answer in await create(lifted, many)} == {"pending"}
    assert [told(answer) for answer in await create(lifted, [creation(tenant, "rich", amount="200000")])] == ["flagged"]
