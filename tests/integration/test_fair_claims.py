"""Each tenant has its turn, whatever the others have waiting; and of a tenant each receiver."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from mockpay.postgres.pool import SESSION_SETTINGS
from mockpay.webhooks import claims
from mockpay.webhooks.shares import Limits, Round, UnderWay
from mockpay.webhooks.store import Claim
from tests.support.gateway import Gateway
from tests.support.plans import generic_plan
from tests.support.queue import add_deliveries, add_tenants, rows_touched

LEASE = timedelta(seconds=10)
LIMITS = Limits(total=64, per_tenant=32, per_host=16)
HOSTS = 20_000
FULL = "full:80"

TakeFor = Callable[..., Awaitable[list[Claim]]]


class Worker:
    """What one remembers from claim to claim. Nothing that it claims comes to an end."""

    def __init__(self, superuser: Any, limits: Limits = LIMITS) -> None:
        self._superuser = superuser
        self._limits = limits
        self._round = Round()
        self.sending: dict[UUID, UnderWay] = {}
        self.is_idle = False

    def is_sending(self, count: int, tenant: UUID, host: str) -> None:
        self.sending |= {uuid4(): UnderWay(tenant, host) for _ in range(count)}

    async def claim(self, *, keep: bool = True) -> Counter[UUID]:
        """How many of each tenant. They are under way from then on, unless they are not kept."""
        claimed = await claims.claim(
            self._superuser, self._round, sending=self.sending, limits=self._limits, lease=LEASE
        )
        self.is_idle = claimed.is_idle
        if keep:
            self.sending |= {each.id: UnderWay(each.tenant_id, each.receiver_host) for each in claimed.claims}
        return Counter(each.tenant_id for each in claimed.claims)

    def of_host(self, host: str) -> int:
        return sum(each.receiver_host == host for each in self.sending.values())


@pytest.fixture
async def tenants(superuser: Any) -> list[UUID]:
    """Two: a hostile one, and another."""
    return await add_tenants(superuser, 2)


@pytest.fixture
async def hostile(superuser: Any, tenants: list[UUID]) -> UUID:
    """Webhooks of the first to 20,000 hosts, all due, and first of all 2,000 to one that is full soon.

    As in the first minute of a new database nothing was analysed yet.
    """
    for name, value in SESSION_SETTINGS.items():
        await superuser.execute("SELECT set_config($1, $2, false)", name, value)
    await add_deliveries(superuser, tenants[0], HOSTS, host="host#:80", hosts=HOSTS, seconds_ago=600)
    await add_deliveries(superuser, tenants[0], 2_000, host=FULL, seconds_ago=900)
    return tenants[0]


@pytest.mark.parametrize("under_way", [0, 16])
async def test_anothers_webhook_is_in_the_next_claim(
    superuser: Any, tenants: list[UUID], hostile: UUID, under_way: int
) -> None:
    """Though it is the youngest of all, and though a host of the one with the thousands is full."""
    await add_deliveries(superuser, tenants[1], 1, host="b:80", seconds_ago=1)
    worker = Worker(superuser)
    worker.is_sending(under_way, hostile, FULL)
    claimed = await worker.claim()
    assert claimed[tenants[1]] == 1
    assert claimed[hostile] >= LIMITS.per_tenant / 2
    await worker.claim()
    assert worker.of_host(FULL) == LIMITS.per_host
    assert len(worker.sending) == LIMITS.per_tenant + 1


async def test_a_tenant_at_its_share_is_passed_over(superuser: Any, tenants: list[UUID], hostile: UUID) -> None:
    worker = Worker(superuser)
    for _ in range(2):
        await worker.claim()
    assert len(worker.sending) == LIMITS.per_tenant
    await add_deliveries(superuser, tenants[1], 3, host="b:80", seconds_ago=1)
    assert await worker.claim() == {tenants[1]: 3}
    assert await worker.claim() == {}
    assert worker.is_idle, "what is not to be sent now is nothing to look for again and again"
    del hostile


async def test_a_host_at_its_limit_does_not_hold_up_the_others(superuser: Any, tenants: list[UUID]) -> None:
    """A thousand older deliveries to a host that is busy stand before one to a host that is not."""
    await add_deliveries(superuser, tenants[0], 1_000, host="dead.invalid:80", seconds_ago=3600)
    await add_deliveries(superuser, tenants[0], 1, host="alive:80")
    worker = Worker(superuser, Limits(total=12, per_tenant=12, per_host=4))
    worker.is_sending(4, tenants[0], "dead.invalid:80")
    assert await worker.claim() == {tenants[0]: 1}
    assert worker.of_host("alive:80") == 1


async def test_a_host_that_fills_up_hides_no_other(superuser: Any, tenants: list[UUID]) -> None:
    """Its backlog is the older one. It has no room for more than one, which only the claim itself finds out."""
    await add_deliveries(superuser, tenants[0], 3_000, host=FULL, seconds_ago=900)
    await add_deliveries(superuser, tenants[0], 5, host="a:80", seconds_ago=1)
    worker = Worker(superuser)
    worker.is_sending(LIMITS.per_host - 1, tenants[1], FULL)  # by another tenant, for that matter
    assert await worker.claim() == {tenants[0]: 6}
    assert worker.of_host("a:80") == 5


async def test_every_host_has_its_turn_beside_a_full_one(superuser: Any, tenants: list[UUID]) -> None:
    """Nothing of what is claimed is kept: the first hosts would be found again and again."""
    hosts = 3 * claims.HOST_STEPS_MAX
    await add_deliveries(superuser, tenants[0], 200, host=FULL, seconds_ago=900)
    await add_deliveries(superuser, tenants[0], hosts, host="host#:80", hosts=hosts, seconds_ago=-3600)
    await add_deliveries(superuser, tenants[0], 1, host="zz:80", seconds_ago=1)
    worker = Worker(superuser)
    worker.is_sending(LIMITS.per_host, tenants[0], FULL)
    found = []
    while not worker.of_host("zz:80"):
        assert not worker.is_idle, "it was not found, and the worker would rest"
        found.append(await worker.claim())
    assert len(found) <= hosts // claims.HOST_STEPS_MAX + 1


async def test_every_tenant_has_its_turn(superuser: Any) -> None:
    """More tenants than one claim looks at. Each has more than there is room for, and those of the first are older."""
    tenants = await add_tenants(superuser, 2 * claims.TENANTS_MAX + 7)
    for tenant in tenants:
        await add_deliveries(superuser, tenant, 100, host="host#:80", hosts=100)
    worker = Worker(superuser, Limits(total=20, per_tenant=4, per_host=16))
    seen: Counter[UUID] = Counter()
    for _ in range(3 * len(tenants) // 20):
        seen += await worker.claim(keep=False)
    assert set(seen) == set(tenants)


async def test_a_tenant_behind_a_thousand_who_only_wait_is_found_without_a_rest(superuser: Any) -> None:
    """Of them nothing is due, and each costs a look."""
    tenants = await add_tenants(superuser, claims.TENANT_STEPS_MAX + 50)
    await superuser.execute(
        """
        INSERT INTO webhook_deliveries (tenant_id, id, payment_id, event_id, event, url, receiver_host, payload,
                                        max_attempts, next_attempt_at, created_at)
        SELECT tenant_id, id, id, id, 'payment.success', 'http://h/', 'h:80', '{}', 3, now() + interval '1 hour', now()
        FROM payments
        """
    )
    await add_deliveries(superuser, tenants[-1], 1)
    worker = Worker(superuser)
    assert await worker.claim() == {}
    assert not worker.is_idle
    assert await worker.claim() == {tenants[-1]: 1}


async def test_one_tenant_alone_uses_its_share_on_many_hosts(superuser: Any, tenants: list[UUID]) -> None:
    await add_deliveries(superuser, tenants[0], 500, host="host#:80", hosts=50)
    worker = Worker(superuser)
    await worker.claim()
    assert len(worker.sending) == LIMITS.per_tenant
    assert max(Counter(each.receiver_host for each in worker.sending.values()).values()) <= LIMITS.per_host


async def explained(superuser: Any, statement: str, arguments: list[str]) -> str:
    plan = await generic_plan(superuser, statement, *arguments)
    assert "Seq Scan on webhook_deliveries" not in plan, plan
    async with superuser.transaction():
        found: str = await superuser.fetchval(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE explained ({', '.join(arguments)})"
        )
    return found


NOBODY = f"'{UUID(int=0)}'"
LOOK = ["NULL", NOBODY, "'{}'", "'{}'", str(claims.TENANT_STEPS_MAX), str(claims.TENANTS_MAX), "32", "8"]


@pytest.mark.parametrize("is_analysed", [True, False])
async def test_the_cost_of_a_claim_does_not_grow_with_hosts(superuser: Any, hostile: UUID, is_analysed: bool) -> None:
    if is_analysed:
        await superuser.execute("VACUUM ANALYZE webhook_deliveries")
    assert rows_touched(await explained(superuser, claims._LOOK_SQL, LOOK)) < 200
    by_host = ["NULL", f"ARRAY['{hostile}'::uuid]", "'{\"\"}'", f"'{{{FULL}}}'", "'{}'", "200", "32"]
    assert rows_touched(await explained(superuser, claims._LOOK_BY_HOST_SQL, by_host)) < 500
    ids = await superuser.fetch("SELECT id FROM webhook_deliveries LIMIT 32")
    chosen = ", ".join(f"'{row['id']}'" for row in ids)
    take = ["NULL", f"array_fill('{hostile}'::uuid, ARRAY[32])", f"ARRAY[{chosen}]::uuid[]", "'10 seconds'"]
    assert rows_touched(await explained(superuser, claims._TAKE_SQL, take)) < 500


async def test_a_worker_serves_another_tenant_while_one_has_nothing_but_silent_hosts(
    gateway: Gateway, superuser: Any, tenants: list[UUID]
) -> None:
    """The silent ones are older, and enough to fill the worker four times. All settings are the defaults."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            pass
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0, backlog=512)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await add_deliveries(
            superuser, tenants[0], 256, host="host#:80", hosts=256, seconds_ago=900, url=f"http://127.0.0.1:{port}/"
        )
        await add_deliveries(superuser, tenants[1], 100, url=gateway.receiver.url)
        running = asyncio.create_task(gateway.worker().run())
        try:
            await gateway.receiver.wait_for(100, timeout_seconds=4)
            held = "SELECT count(*) FROM webhook_deliveries WHERE tenant_id = $1 AND claimed_at IS NOT NULL"
            assert await superuser.fetchval(held, tenants[0]) == LIMITS.per_tenant
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
