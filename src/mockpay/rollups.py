"""Figures of the whole server that would take a count of all rows. The database keeps them itself, by triggers."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

from mockpay.postgres.pool import Connection

DAY: Final = timedelta(days=1)
"""For how long it is known in which minute something happened."""

# A minute that is over has no more than a few late changes; what is still being counted is left alone.
_QUIET: Final = timedelta(minutes=2)

_READ_SQL: Final = """
SELECT figure, label, currency, sum(rows)::bigint AS rows, sum(total)::bigint AS total,
       coalesce(sum(rows) FILTER (WHERE minute >= $2), 0)::bigint AS recent
FROM rollups WHERE figure = ANY ($1::text[])
GROUP BY figure, label, currency HAVING sum(rows) <> 0
ORDER BY figure, label, currency
"""
# Rows of finished minutes become one for each minute, and one for all before the day. This waits for no connection that
# counts, or each could wait for the other: what is locked is left for the next time.
_PUT_TOGETHER_SQL: Final = """
WITH only_one AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock(7305431920264) AS mine
),
scattered AS (
    SELECT figure, label, currency, minute, backend FROM rollups
    WHERE (SELECT mine FROM only_one)
      AND minute < $1 AND (backend <> 0 OR minute > '-infinity' AND minute < $2)
    FOR UPDATE SKIP LOCKED
),
gone AS (
    DELETE FROM rollups USING scattered
    WHERE (rollups.figure, rollups.label, rollups.currency, rollups.minute, rollups.backend)
        = (scattered.figure, scattered.label, scattered.currency, scattered.minute, scattered.backend)
    RETURNING rollups.*
)
INSERT INTO rollups (figure, label, currency, minute, backend, rows, total)
SELECT figure, label, currency, CASE WHEN minute < $2 THEN '-infinity' ELSE minute END, 0, sum(rows), sum(total)
FROM gone GROUP BY 1, 2, 3, 4
ON CONFLICT (figure, label, currency, minute, backend)
    DO UPDATE SET rows = rollups.rows + excluded.rows, total = rollups.total + excluded.total
"""


class Figure(StrEnum):
    """What is counted. The migration says what their labels and totals are."""

    PAYMENTS = "payments"
    AUDIT_ENTRIES = "audit_entries"
    DELIVERIES = "deliveries"
    ATTEMPTS = "attempts"
    TENANTS = "tenants"


class Rollup(msgspec.Struct, frozen=True, kw_only=True):
    """How many rows there are with this label and currency; `recent` is how many of them were created lately."""

    figure: Figure
    label: str
    currency: str
    rows: int
    total: int
    recent: int


async def read(connection: Connection, figures: Sequence[Figure], since: datetime) -> list[Rollup]:
    """`since`, no more than DAY ago, bounds what is recent; its whole minute counts."""
    bound = since.replace(second=0, microsecond=0)
    rows = await connection.fetch(_READ_SQL, figures, bound)
    return [msgspec.convert(dict(row), Rollup) for row in rows]


async def put_together(connection: Connection, now: datetime) -> None:
    """What many connections counted in many minutes, so that reading stays cheap. No figure changes by it."""
    await connection.execute(_PUT_TOGETHER_SQL, now - _QUIET, now - DAY - _QUIET)
