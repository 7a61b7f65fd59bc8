"""What has to be swept up now and then: deliveries and requests that were kept long enough, windows of rate limits,
figures that many connections counted, and waits of webhooks from before the clock was set back.
"""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from mockpay import rollups
from mockpay.context import Context
from mockpay.errors import DatabaseUnavailable
from mockpay.idempotency import store as idempotency
from mockpay.journal import store as journal
from mockpay.payments import outcome_store
from mockpay.tenants import admission
from mockpay.types import Clock
from mockpay.webhooks import log as deliveries
from mockpay.webhooks import waits

PAUSE_SECONDS: Final = 60.0
LOOK_AT_CLOCK_SECONDS: Final = 1.0
EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)

log = structlog.stdlib.get_logger("mockpay.housekeeping")


async def keep_house(context: Context) -> None:
    """Until cancelled. Any number of processes may do so: they pass over each other's rows."""
    look: waits.Look | None = None
    while True:
        try:
            look = await waits.mend(context.database, look)
            await clean_once(context)
        except DatabaseUnavailable as error:
            log.warning("can't keep house", cause=repr(error.__cause__))
        except Exception:
            log.exception("housekeeping failed; it is tried again")
        await pause(context.clock)


async def pause(clock: Clock, look_at_clock_seconds: float = LOOK_AT_CLOCK_SECONDS) -> None:
    """A minute; but until the clock is set back, which is probably the database's too."""
    end = time.monotonic() + PAUSE_SECONDS
    latest = clock.now()
    while time.monotonic() < end and (now := clock.now()) >= latest:
        latest = now
        await asyncio.sleep(look_at_clock_seconds)


async def clean_once(context: Context) -> int:
    """The number of deliveries that were forgotten."""
    async with context.database.connection() as connection:
        await admission.forget_expired(connection)
        await rollups.put_together(connection, context.clock.now())
        await outcome_store.forget_decided(connection)
    await _forget_requests(context)
    await _forget_keys(context)
    return await _forget_deliveries(context)


async def _forget_deliveries(context: Context) -> int:
    days = context.settings.webhook_retention_days
    if days == 0:
        return 0
    since, forgotten = EVER, 0
    while True:
        async with context.database.connection() as connection:
            step = await deliveries.forget_delivered(connection, since=since, age=timedelta(days=days))
        forgotten += step.count
        if step.latest is None or step.count < deliveries.FORGOTTEN_AT_ONCE:
            break
        since = step.latest
    if forgotten:
        log.info("delivered webhooks forgotten", deliveries=forgotten, older_than_days=days)
    return forgotten


async def _forget_keys(context: Context) -> None:
    hours = context.settings.idempotency_hours
    count, since = idempotency.FORGOTTEN_AT_ONCE if hours else 0, EVER
    while count == idempotency.FORGOTTEN_AT_ONCE:
        async with context.database.connection() as connection:
            count, latest = await idempotency.forget(connection, since=since, age=timedelta(hours=hours))
        since = latest or since


async def _forget_requests(context: Context) -> None:
    count = journal.FORGOTTEN_AT_ONCE
    while count == journal.FORGOTTEN_AT_ONCE:
        async with context.database.connection() as connection:
            count = await journal.forget(connection, timedelta(hours=context.settings.timeline_hours))
