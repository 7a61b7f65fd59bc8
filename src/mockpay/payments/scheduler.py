"""Lets payments become by themselves what was planned for them. Any number of processes may do so."""

import asyncio
from typing import Final

import structlog

from mockpay.context import Context
from mockpay.errors import ApiError, DatabaseUnavailable
from mockpay.faults import store as fault_rules
from mockpay.payments import outcome_store as store
from mockpay.payments.model import Settle, TriggeredBy
from mockpay.payments.transition import Transition, attempt
from mockpay.payments.transition_store import Place
from mockpay.payments.views import payment_view

POLL_SECONDS: Final = 0.1
RETRY_SECONDS: Final = 1.0
BATCH_MAX: Final = 32

log = structlog.stdlib.get_logger("mockpay.outcomes")


async def settle_outcomes(context: Context) -> None:
    """Goes on until cancelled. Survives the loss of the database: what was not written is still due."""
    while True:
        try:
            while await settle_due(context):
                pass
            await asyncio.sleep(POLL_SECONDS)
        except DatabaseUnavailable as error:
            log.warning("can't settle outcomes", cause=repr(error.__cause__))
            await asyncio.sleep(RETRY_SECONDS)
        except Exception:
            log.exception("can't settle outcomes")
            await asyncio.sleep(RETRY_SECONDS)


async def settle_due(context: Context, limit: int = BATCH_MAX) -> int:
    """Settles outcomes that are due, together, and returns how many. Raises DatabaseUnavailable.

    Where that fails, they are settled one by one, and one that can't be is put off: the others go on. Killed in the
    middle of this, the payments' rows are still in the queue.
    """
    places: list[Place] = []
    try:
        async with context.database.transaction() as connection:
            await store.wait_briefly(connection)
            places = await store.due(connection, limit)
            if not places:
                return 0
            await fault_rules.lock(connection, {tenant_id for tenant_id, _ in places})
            done = await attempt(context, connection, [_settling(place) for place in places])
            for answer in done.answers:
                if isinstance(answer, ApiError):  # it would be due for ever
                    raise answer
            await store.settled(connection, places)
    except DatabaseUnavailable:
        raise
    except Exception as error:
        if len(places) == 1:
            await _put_off(context, places[0], error)
            return 1
        if not places:
            raise
        log.warning("outcomes could not be settled together, and are settled one by one", cause=repr(error))
        return sum([await settle_due(context, limit=1) for _ in places])
    if done.is_news:
        context.wake_worker()
    return len(places)


async def _put_off(context: Context, place: Place, error: Exception) -> None:
    log.error("an outcome can't be settled, and is put off", payment=str(place[1]), exc_info=error)
    async with context.database.connection() as connection:
        await store.put_off(connection, place, type(error).__name__)


def _settling(place: Place) -> Transition:
    return Transition(
        tenant_id=place[0],
        payment_id=place[1],
        change=Settle(),
        triggered_by=TriggeredBy.SCENARIO,
        keyed=None,
        view=payment_view,
    )
