"""Read the timeline: four kinds of entries, merged in the order of time."""

import asyncio
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import msgspec

from mockpay.context import Context
from mockpay.cursor import Cursor
from mockpay.errors import NotFound
from mockpay.journal import buffer
from mockpay.journal import store as journal
from mockpay.payments import store as payments
from mockpay.payments.model import Payment
from mockpay.payments.transition import NO_PAYMENT
from mockpay.tenants.model import Tenant
from mockpay.timeline import store
from mockpay.timeline.views import Entry, attempt_entry, change_entry, request_entry, webhook_entry

OTHERS_WRITE_SECONDS: Final = 2 * buffer.PAUSE_SECONDS
"""After this what other processes had answered before is in the table, as far as the database keeps up."""

_BEGINNING: Final = Cursor(datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0))
_END: Final = datetime.max.replace(tzinfo=UTC)


class TimelineQuery(msgspec.Struct, frozen=True, kw_only=True):
    """`at_from` is inclusive, `at_to` exclusive."""

    after: Cursor | None
    at_from: datetime | None
    at_to: datetime | None
    limit: int

    @property
    def start(self) -> Cursor:
        start = self.after or _BEGINNING
        if self.at_from is None:
            return start
        # No id is below zero: what has that place in time is still behind it.
        return max(start, Cursor(self.at_from, UUID(int=0)), key=lambda place: (place.created_at, place.id))


async def page(context: Context, tenant: Tenant, payment_id: UUID | None, query: TimelineQuery) -> list[Entry]:
    """Oldest first; of one payment, or of all if that is None. Raises NotFound."""
    await _wait_for_requests(context)
    until = query.at_to or _END
    place = (query.start, until, query.limit)
    async with context.database.snapshot() as connection:
        if payment_id is None:
            asked = await journal.page(connection, tenant.id, *place)
        else:
            payment = await payments.by_id(connection, tenant.id, payment_id)
            if payment is None:
                raise NotFound(NO_PAYMENT)
            asked = await journal.of_payment(connection, tenant.id, *place, *_names(payment))
        entries = [
            *map(request_entry, asked),
            *map(change_entry, await store.changes(connection, tenant.id, payment_id, *place)),
            *map(webhook_entry, await store.webhooks(connection, tenant.id, payment_id, *place)),
            *map(attempt_entry, await store.attempts(connection, tenant.id, payment_id, *place)),
        ]
    return sorted(entries, key=lambda entry: (entry.created_at, entry.id))[: query.limit]


def _names(payment: Payment) -> tuple[UUID, str]:
    return payment.id, payment.idempotency_key


async def _wait_for_requests(context: Context) -> None:
    """Requests are written together, shortly after they were answered: here at once, in other processes soon."""
    await context.journal.write(context.database)
    await asyncio.sleep(OTHERS_WRITE_SECONDS)
