"""`make bench` takes minutes, and nobody waits for it: what it does to the database, in small."""

from typing import Any

import pytest
from benchmarks import ceiling, deliveries, growth

from mockpay.database_access import DatabaseAccess
from mockpay.postgres.pool import connect
from mockpay.tenants.model import Tenant
from tests.support.servers import scratch_folder

TRIGGERS_THAT_ARE_OFF = "SELECT count(*) FROM pg_trigger WHERE tgenabled = 'D'"


@pytest.fixture
def access(database_url: str, owner_url: str) -> DatabaseAccess:
    return DatabaseAccess(database_url, owner_url)


@pytest.mark.tampering  # it writes past the triggers that count
async def test_the_ceiling_is_measured_and_the_triggers_are_on_again(access: DatabaseAccess, superuser: Any) -> None:
    with scratch_folder() as folder:
        assert ceiling.transactions_per_second(access, folder, 1) > 0
    assert await superuser.fetchval("SELECT count(*) FROM payments") > 0
    assert await superuser.fetchval(TRIGGERS_THAT_ARE_OFF) == 0


async def test_the_data_grows_and_is_known_to_the_planner(
    access: DatabaseAccess, tenant: Tenant, superuser: Any
) -> None:
    for before, after in ((0, 10), (10, 30)):
        await growth.grow(access, [str(tenant.id)], before, after)
    counts = {table: await superuser.fetchval(f"SELECT count(*) FROM {table}") for table in growth.TABLES}
    assert counts == {"payments": 30, "audit_log": 90, "webhook_deliveries": 30}
    known = await superuser.fetch("SELECT relname, reltuples FROM pg_class WHERE relname = ANY($1)", list(counts))
    assert {row["relname"]: row["reltuples"] for row in known} == counts


async def test_the_queue_is_filled_and_emptied(access: DatabaseAccess, superuser: Any) -> None:
    connection = await connect(access.migration_url)
    await deliveries.fill(connection, "http://127.0.0.1:9/", 20)
    assert await superuser.fetchval("SELECT count(*) FROM webhook_deliveries WHERE status = 'pending'") == 20
    assert await superuser.fetchval("SELECT reltuples FROM pg_class WHERE relname = 'webhook_deliveries'") == 20
    await connection.execute(deliveries.GIVEN_UP)
    assert await superuser.fetchval("SELECT count(*) FROM webhook_deliveries WHERE status = 'pending'") == 0
    await connection.close()
