"""Delivered webhooks are forgotten after a time, whatever else is kept for ever."""

from dataclasses import replace
from typing import Any

import pytest

from mockpay.context import Context
from mockpay.housekeeping import EVER, clean_once
from mockpay.postgres.pool import SESSION_SETTINGS
from mockpay.webhooks import log
from tests.support.plans import generic_plan
from tests.support.queue import add_deliveries, add_tenants, rows_touched

DAY = 86_400.0
ARGUMENTS = f"'{EVER}'", "'30 days'"


@pytest.fixture
def context(context: Context) -> Context:
    return replace(context, settings=replace(context.settings, webhook_retention_days=30))


@pytest.fixture
async def many_dead(superuser: Any) -> Any:
    """A tenant with 20,000 dead letters of long ago, and 20,000 webhooks that were delivered yesterday."""
    [tenant] = await add_tenants(superuser, 1)
    await add_deliveries(superuser, tenant, 20_000, status="dead", seconds_ago=90 * DAY)
    await add_deliveries(superuser, tenant, 20_000, status="delivered", seconds_ago=DAY)
    for name, value in SESSION_SETTINGS.items():
        await superuser.execute("SELECT set_config($1, $2, false)", name, value)
    return tenant


@pytest.mark.parametrize("is_analysed", [False, True])
async def test_old_dead_letters_are_not_looked_at(many_dead: Any, superuser: Any, is_analysed: bool) -> None:
    """They are kept for ever, so that each look at them would be for nothing."""
    await add_deliveries(superuser, many_dead, 7, status="delivered", seconds_ago=40 * DAY)
    if is_analysed:
        await superuser.execute("VACUUM ANALYZE webhook_deliveries")
    plan = await generic_plan(superuser, log._FORGET_DELIVERED_SQL, *ARGUMENTS)
    assert "Index Scan using webhook_deliveries_delivered" in plan, plan
    explained = await superuser.fetchval(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE explained ({', '.join(ARGUMENTS)})"
    )
    assert rows_touched(explained) < 100, explained
    assert await superuser.fetchval("SELECT count(*) FROM webhook_deliveries") == 40_000


async def test_what_is_old_is_forgotten_in_steps(context: Context, superuser: Any) -> None:
    """Of two tenants, more than one step takes, and many of one moment."""
    for tenant in await add_tenants(superuser, 2):
        await add_deliveries(superuser, tenant, 2 * log.FORGOTTEN_AT_ONCE, status="delivered", seconds_ago=31 * DAY)
        await add_deliveries(superuser, tenant, 600, status="delivered", seconds_ago=35 * DAY)
        await add_deliveries(superuser, tenant, 5, status="delivered", seconds_ago=29 * DAY)
    assert await clean_once(context) == 2 * (2 * log.FORGOTTEN_AT_ONCE + 600)
    assert await superuser.fetchval("SELECT count(*) FROM webhook_deliveries") == 10


async def test_what_another_holds_is_forgotten_the_next_time(context: Context, superuser: Any) -> None:
    [tenant] = await add_tenants(superuser, 1)
    await add_deliveries(superuser, tenant, 3, status="delivered", seconds_ago=31 * DAY)
    async with superuser.transaction():
        await superuser.execute("SELECT FROM webhook_deliveries LIMIT 1 FOR UPDATE")
        assert await clean_once(context) == 2
    assert await clean_once(context) == 1
