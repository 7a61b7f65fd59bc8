"""Recompute every chain of the database, and find each one that was tampered with."""

from collections.abc import AsyncIterator
from itertools import groupby
from typing import Final
from uuid import UUID

import msgspec

from mockpay.audit.chain import Break, Entry, first_break
from mockpay.audit.store import entry_of
from mockpay.postgres.pool import Connection

BATCH_PAYMENTS: Final = 1000

# Starts at the payments, not the entries, so that a payment whose whole chain is gone is found too.
# Walks in batches by key: a table of ten million needs no more memory than one of a thousand.
_CHAINS_SQL: Final = """
WITH batch AS (
    SELECT tenant_id, id, status FROM payments
    WHERE (tenant_id, id) > ($1, $2) ORDER BY tenant_id, id LIMIT $3
)
SELECT batch.tenant_id AS owner_id, batch.id AS subject_id, batch.status AS current_status, audit_log.*
FROM batch
LEFT JOIN audit_log ON audit_log.tenant_id = batch.tenant_id AND audit_log.payment_id = batch.id
ORDER BY batch.tenant_id, batch.id, audit_log.sequence
"""


class Checked(msgspec.Struct, frozen=True):
    """One payment's chain, checked."""

    tenant_id: UUID
    payment_id: UUID
    entries: int
    broken: Break | None


class Report(msgspec.Struct):
    """What a check of the whole database found; a line for each broken chain."""

    payments: int
    entries: int
    broken: list[str]


async def report(connection: Connection) -> Report:
    found = Report(0, 0, [])
    async for checked in check_all(connection):
        found.payments += 1
        found.entries += checked.entries
        if checked.broken:
            where = checked.broken.entry_id or f"number {checked.broken.sequence}"
            found.broken.append(f"payment {checked.payment_id}: entry {where}: {checked.broken.problem}")
    return found


async def check_all(connection: Connection) -> AsyncIterator[Checked]:
    """Check every chain, one after the other. Yields the intact ones too, so that the caller can count."""
    after = (UUID(int=0), UUID(int=0))
    while rows := await connection.fetch(_CHAINS_SQL, *after, BATCH_PAYMENTS):
        for (tenant_id, payment_id, status), chain in groupby(
            rows, key=lambda row: (row["owner_id"], row["subject_id"], row["current_status"])
        ):
            entries: list[Entry] = [entry_of(row) for row in chain if row["sequence"] is not None]
            yield Checked(tenant_id, payment_id, len(entries), first_break(payment_id, entries, status))
            after = (tenant_id, payment_id)
