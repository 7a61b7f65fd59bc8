"""Replay deliveries: to where the payment's webhooks go now, which may not be where they went then."""

from typing import Final
from uuid import UUID

import msgspec

from mockpay.context import Context
from mockpay.cursor import LAST_ID
from mockpay.errors import NotFound, NotReplayable
from mockpay.payments import store as payments
from mockpay.postgres.pool import Connection
from mockpay.webhooks import log
from mockpay.webhooks.log import DeadLetterFilter, Delivery, Target

NO_DELIVERY: Final = "There is no such delivery."
REPLAYED_AT_ONCE: Final = 500
"""Rows in one transaction, so that replaying a million locks none of them for long."""


class Replayed(msgspec.Struct, frozen=True):
    """How many were queued, and how many could not be, because their payment has no URL any more."""

    replayed: int
    skipped: int


async def page(context: Context, tenant_id: UUID, *, before: UUID, status: str | None, limit: int) -> list[Delivery]:
    async with context.database.connection() as connection:
        return await log.page(connection, tenant_id, before=before, status=status, limit=limit)


async def dead_letters(
    context: Context, wanted: DeadLetterFilter, *, before: UUID, limit: int
) -> tuple[int, list[Delivery]]:
    """The number of all that are wanted, and one page of them."""
    async with context.database.connection() as connection:
        count = await log.count_dead_letters(connection, wanted)
        return count, await log.dead_letters(connection, wanted, before=before, limit=limit)


async def replay(context: Context, tenant_id: UUID, delivery_id: UUID) -> Delivery:
    """One that is over, well or not. Raises NotFound and NotReplayable."""
    async with context.database.transaction() as connection:
        replayed = await _replay_one(connection, context, tenant_id, delivery_id, ["dead", "delivered"])
    context.wake_worker()
    return replayed


async def replay_dead(context: Context, delivery_id: UUID) -> Delivery:
    """One dead letter of any tenant. Raises NotFound and NotReplayable."""
    async with context.database.transaction() as connection:
        tenant_id = await log.tenant_of(connection, delivery_id)
        if tenant_id is None:
            raise NotFound(NO_DELIVERY)
        replayed = await _replay_one(connection, context, tenant_id, delivery_id, ["dead"])
    context.wake_worker()
    return replayed


async def replay_all_dead(context: Context, wanted: DeadLetterFilter) -> Replayed:
    """All dead letters that are wanted, each once: one that dies again meanwhile is not replayed again."""
    replayed = skipped = 0
    before = LAST_ID
    while True:
        async with context.database.transaction() as connection:
            dead = await log.dead_letters(connection, wanted, before=before, limit=REPLAYED_AT_ONCE)
            targets = await _targets(connection, dead)
            queued = await _replay(connection, context, targets, ["dead"])
        if not dead:
            return Replayed(replayed, skipped)
        context.wake_worker()
        replayed, skipped = replayed + len(queued), skipped + len(dead) - len(targets)
        before = dead[-1].id


async def _replay_one(
    connection: Connection, context: Context, tenant_id: UUID, delivery_id: UUID, of_status: list[str]
) -> Delivery:
    delivery = await log.by_id_locked(connection, tenant_id, delivery_id)
    if delivery is None:
        raise NotFound(NO_DELIVERY)
    if delivery.status not in of_status:
        raise NotReplayable(f"This delivery is {delivery.status}; only a {' or '.join(of_status)} one can be replayed.")
    targets = await _targets(connection, [delivery])
    if not targets:
        raise NotReplayable("The payment has no webhook_url, and its tenant no default one; set one, and replay again.")
    queued = await _replay(connection, context, targets, of_status)
    return msgspec.structs.replace(queued[0], attempt_log=delivery.attempt_log)


async def _targets(connection: Connection, deliveries: list[Delivery]) -> list[Target]:
    """Where they are to go now. Those whose payment has no URL any more are left out."""
    urls = await payments.current_urls(connection, ((one.tenant_id, one.payment_id) for one in deliveries))
    return [
        Target(tenant_id=one.tenant_id, id=one.id, url=url)
        for one in deliveries
        if (url := urls.get((one.tenant_id, one.payment_id)))
    ]


async def _replay(
    connection: Connection, context: Context, targets: list[Target], of_status: list[str]
) -> list[Delivery]:
    max_attempts = context.settings.webhook_attempts
    return await log.replay(connection, targets, max_attempts=max_attempts, of_status=of_status)
