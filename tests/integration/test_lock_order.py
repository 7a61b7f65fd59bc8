"""What waits for what: counters or payments first, then tenants, then fault rules, then keys, in every way through."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from mockpay.context import Context
from mockpay.faults import service as faults
from mockpay.faults import store as fault_rules
from mockpay.faults.requests import CreateFault, FaultText
from mockpay.payments import scheduler
from mockpay.payments.creation import create_under_locks
from mockpay.payments.model import Succeed
from mockpay.payments.transition import move_together, move_under_locks
from mockpay.payments.velocity import Memory
from mockpay.postgres.migrate import bundled_migrations, migrate
from mockpay.postgres.pool import Connection, connect, open_database
from mockpay.tenants.model import Tenant
from tests.integration.test_creation import creation, told
from tests.integration.test_rules_in_motion import processes
from tests.integration.test_transition import transition
from tests.support.gateway import Gateway
from tests.support.waiting import until_blocked

__all__ = ["processes"]  # a fixture
NEVER = CreateFault(FaultText("drop"), every=1_000_000)
DUE = "UPDATE payments SET outcome_status = 'success', outcome_seed = 1, outcome_due_at = now() WHERE id = $1"
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


@pytest.mark.parametrize("who", ["moves the second alone", "settles the second"])
async def test_a_batch_locks_its_payments_before_it_locks_a_rule(
    gateway: Gateway, context: Context, tenant: Tenant, superuser: Any, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """Else it holds the rule, and waits for a payment whose holder waits for the rule. As in the first executions on a
    connection the plan is made for this very batch.
    """
    await faults.create(context, tenant, NEVER)
    first, second = sorted([(await gateway.create(f"k{number}")).id for number in range(2)])
    await superuser.execute(DUE, second)
    holding, go = asyncio.Event(), asyncio.Event()
    lock = fault_rules.lock

    async def lock_later(connection: Connection, tenant_ids: Any) -> None:
        holding.set()
        await go.wait()
        await lock(connection, tenant_ids)

    monkeypatch.setattr(fault_rules, "lock", lock_later)
    alone: Awaitable[object] = (
        scheduler.settle_due(context)
        if who == "settles the second"
        else move_under_locks(context, transition(tenant, second, Succeed()))
    )
    other = asyncio.ensure_future(alone)
    await holding.wait()
    batch = asyncio.create_task(move_together(context, [transition(tenant, id_, Succeed()) for id_ in (first, second)]))
    await until_blocked(superuser, 1)
    go.set()
    answers, _ = await asyncio.gather(batch, other)
    assert answers == [None, None], "the rule was asked meanwhile"
    assert await superuser.fetchval(DEADLOCKS) == 0


async def test_no_rule_is_made_or_ended_while_rules_are_locked(
    context: Context, tenant: Tenant, superuser: Any
) -> None:
    """Also where there was none to be locked."""
    for _ in range(2):
        async with context.database.transaction() as connection:
            await fault_rules.lock(connection, [tenant.id])
            making = asyncio.create_task(faults.replace_all(context, tenant, [NEVER]))
            await until_blocked(superuser, 1)
            assert not making.done()
        await making


async def test_a_rule_that_fires_once_does_so_once_however_often_it_is_made_anew(
    processes: list[httpx.AsyncClient],
) -> None:
    """A scenario replaces all rules at once, while requests of two processes ask them."""
    file = """
        name = "once"
        teaches = "That once is once."
        [[faults]]
        fault = "error; status=418"
        operation = "list"
        times = 1
    """
    made, injected = 0, Counter[int]()
    done = asyncio.Event()

    async def ask(client: httpx.AsyncClient) -> None:
        while not done.is_set():
            injected[(await client.get("/api/payments")).status_code] += 1

    asking = [asyncio.create_task(ask(client)) for client in processes * 3]
    for _ in range(60):
        answer = await processes[0].post("/api/scenarios/run", json={"file": file})
        assert answer.status_code == 201, answer.text
        made += 1
    done.set()
    await asyncio.gather(*asking)
    assert set(injected) <= {200, 418}
    assert 0 < injected[418] <= made


async def test_creations_under_locks_see_rules_that_replaced_others_while_they_waited(
    context: Context, tenant: Tenant, superuser: Any
) -> None:
    await faults.replace_all(context, tenant, [NEVER] * 5)
    async with context.database.transaction() as connection:
        await connection.execute("SELECT id FROM tenants WHERE id = $1 FOR NO KEY UPDATE", tenant.id)
        await fault_rules.delete_all(connection, tenant.id)
        asked = [creation(tenant, f"k{number}", amount="200000") for number in range(3)]
        creating = asyncio.create_task(create_under_locks(context, Memory(), asked))
        await until_blocked(superuser, 1)
        rules = [faults._new_rule(context, NEVER)]
        await fault_rules.insert(connection, tenant.id, rules)
    assert [told(answer) for answer in await creating] == ["flagged"] * 3
    assert [rule.matched for rule in await faults.of_tenant(context, tenant)] == [3]


async def test_nobody_waits_in_a_circle_behind_a_pooler(
    database_url: str, context: Context, tenant: Tenant, superuser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where each statement is planned anew: batches, single ones and due outcomes of the same payments and rules."""
    monkeypatch.setattr("mockpay.postgres.pool.STATEMENTS_CACHED", 0)
    database = await open_database(database_url, 8)
    unprepared = replace(context, database=database)
    await superuser.execute("UPDATE fraud_rules SET is_active = false")
    await faults.create(unprepared, tenant, NEVER)
    gateway = Gateway(unprepared, tenant, None)  # type: ignore[arg-type]  # nobody receives anything here
    for turn in range(4):
        ids = [(await gateway.create(f"{turn} {number}", webhook=False)).id for number in range(12)]
        await superuser.execute(
            "UPDATE payments SET webhook_url = 'http://127.0.0.1:9/', outcome_status = 'success', outcome_seed = 1, "
            "outcome_due_at = now() WHERE status = 'pending'"
        )
        moves = [transition(tenant, id_, Succeed()) for id_ in ids]
        await asyncio.gather(
            move_together(unprepared, moves),
            scheduler.settle_due(unprepared),
            *(move_under_locks(unprepared, move) for move in moves[-3:]),
            return_exceptions=True,
        )
    assert await superuser.fetchval(DEADLOCKS) == 0
    assert await superuser.fetchval("SELECT count(*) FROM put_off_outcomes") == 0
    await database.close()


async def test_a_migration_that_meets_a_request_of_the_version_before_is_tried_again(empty_database_url: str) -> None:
    """One that has locked counters, and then writes payments; the migration locks them the other way round."""
    new, old = await connect(empty_database_url), await connect(empty_database_url)
    await migrate(new, [each for each in bundled_migrations() if each.version <= 10])
    tenant_id = await new.fetchval(
        "INSERT INTO tenants (id, name, email, api_key_sha256, rate_limit_tier, created_at) "
        "VALUES (gen_random_uuid(), 'T', 't@example.com', sha256('t'), 'standard', now()) RETURNING id"
    )
    async with old.transaction():
        await old.execute("SELECT tenant_id FROM creation_counters FOR NO KEY UPDATE")
        migrating = asyncio.create_task(migrate(new, bundled_migrations()))
        watching = await connect(empty_database_url)
        await until_blocked(watching, 1)
        await watching.close()
        await old.execute(
            "INSERT INTO payments (tenant_id, id, amount_minor_units, currency, status, idempotency_key, created_at, "
            "updated_at) VALUES ($1, $2, 1, 'USD', 'pending', 'k', now(), now())", tenant_id, uuid.uuid4(),
        )  # fmt: skip
    assert len(await migrating) == len(bundled_migrations()) - 10
    assert await new.fetchval("SELECT creations FROM creation_counters") == 1
    for connection in (new, old):
        await connection.close()
