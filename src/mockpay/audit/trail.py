"""Read the trail of every payment of the database, one after the other, in constant memory."""

from collections.abc import AsyncIterator
from typing import Final, TypeVar
from uuid import UUID

import msgspec

from mockpay.audit.chain import Current, Entry
from mockpay.audit.facts import facts_of
from mockpay.audit.store import entry_of
from mockpay.postgres.pool import Connection

Key = tuple[UUID, UUID]
"""Tenant and payment: the order of everything here, which PostgreSQL and Python agree on."""

Left = TypeVar("Left")
Right = TypeVar("Right")

# Cursors of SQL itself: those of asyncpg leave named statements behind, on which the next program behind a pooler would
# stumble. Each row is read exactly once, whatever constraints somebody took away; pages by key would skip duplicates.
_OPEN_PAYMENTS_SQL: Final = """
DECLARE audited_payments NO SCROLL CURSOR FOR
SELECT tenant_id, id, status, amount_minor_units, currency, refund_minor_units, refund_reason, failure_code, flag_rule,
       flag_reason
FROM payments ORDER BY tenant_id, id
"""
_NEXT_PAYMENTS_SQL: Final = "FETCH FORWARD 1000 FROM audited_payments"
_OPEN_ENTRIES_SQL: Final = """
DECLARE audited_entries NO SCROLL CURSOR FOR
SELECT tenant_id, payment_id, sequence, id, old_status, new_status, triggered_by, metadata, created_at,
       prev_hash, entry_hash
FROM audit_log ORDER BY tenant_id, payment_id, sequence
"""
_NEXT_ENTRIES_SQL: Final = "FETCH FORWARD 1000 FROM audited_entries"


class Trail(msgspec.Struct, frozen=True):
    """A payment's entries, in order, and what it is now: None where entries are left of a payment that is gone."""

    tenant_id: UUID
    payment_id: UUID
    current: Current | None
    entries: list[Entry]


async def trails(connection: Connection) -> AsyncIterator[Trail]:
    """Every payment, without entries too, and every entry, without payment too. Once in a transaction."""
    async for (tenant_id, payment_id), current, entries in joined(_payments(connection), _chains(connection)):
        yield Trail(tenant_id, payment_id, current, entries or [])


async def joined(
    left: AsyncIterator[tuple[Key, Left]], right: AsyncIterator[tuple[Key, Right]]
) -> AsyncIterator[tuple[Key, Left | None, Right | None]]:
    """Two streams in the order of their keys, as one; None stands where a side does not have the key."""
    one, other = await anext(left, None), await anext(right, None)
    while heads := [head[0] for head in (one, other) if head]:
        key = min(heads)
        from_left = one[1] if one and one[0] == key else None
        from_right = other[1] if other and other[0] == key else None
        yield key, from_left, from_right
        if from_left is not None:
            one = await anext(left, None)
        if from_right is not None:
            other = await anext(right, None)


async def _payments(connection: Connection) -> AsyncIterator[tuple[Key, Current]]:
    await connection.execute(_OPEN_PAYMENTS_SQL)
    while rows := await connection.fetch(_NEXT_PAYMENTS_SQL):
        for row in rows:
            tenant_id, payment_id, status = row[:3]
            yield (tenant_id, payment_id), Current(status, facts_of(**dict(tuple(row.items())[3:])))


async def _chains(connection: Connection) -> AsyncIterator[tuple[Key, list[Entry]]]:
    await connection.execute(_OPEN_ENTRIES_SQL)
    chain: list[Entry] = []
    while rows := await connection.fetch(_NEXT_ENTRIES_SQL):
        for entry in map(entry_of, rows):
            if chain and _key_of(entry) != _key_of(chain[0]):
                yield _key_of(chain[0]), chain
                chain = []
            chain.append(entry)
    if chain:
        yield _key_of(chain[0]), chain


def _key_of(entry: Entry) -> Key:
    return entry.content.tenant_id, entry.content.payment_id
