"""The queue of planned outcomes, and those that were put off because they could not be settled."""

from collections.abc import Sequence
from typing import Final

from mockpay.payments.transition_store import Place
from mockpay.postgres.parameters import columns_of
from mockpay.postgres.pool import Connection

# For locks, until the transaction ends. Who waits for longer is put off, rather than holding up all that are due.
_WAIT_BRIEFLY_SQL: Final = "SELECT set_config('lock_timeout', '2s', true)"
# The whole queue. Whoever holds the row is deciding it; a payment that was decided is not pending. Nothing but ids is
# read: what can't be read as a payment must not keep the others from being settled.
_DUE_SQL: Final = """
SELECT payment.tenant_id, payment.id FROM payments AS payment
WHERE payment.status = 'pending' AND payment.outcome_due_at <= now()
  AND NOT EXISTS (
      SELECT FROM put_off_outcomes AS put_off
      WHERE put_off.tenant_id = payment.tenant_id AND put_off.payment_id = payment.id AND put_off.retry_at > now()
  )
ORDER BY payment.outcome_due_at LIMIT $1 FOR NO KEY UPDATE OF payment SKIP LOCKED
"""
# Twice as long each time, up to an hour.
_PUT_OFF_SQL: Final = """
INSERT INTO put_off_outcomes AS held (tenant_id, payment_id, failures, error, retry_at)
VALUES ($1, $2, 1, $3, now() + interval '2 seconds')
ON CONFLICT (tenant_id, payment_id) DO UPDATE
    SET failures = held.failures + 1, error = excluded.error,
        retry_at = now() + least(interval '1 hour', 2 ^ least(held.failures + 1, 20) * interval '1 second')
"""
_SETTLED_SQL: Final = """
DELETE FROM put_off_outcomes AS put_off
USING unnest($1::uuid[], $2::uuid[]) AS settled (tenant_id, payment_id)
WHERE put_off.tenant_id = settled.tenant_id AND put_off.payment_id = settled.payment_id
"""
# Those whose payments were decided in another way meanwhile.
_FORGET_SQL: Final = """
DELETE FROM put_off_outcomes AS put_off USING payments AS payment
WHERE payment.tenant_id = put_off.tenant_id AND payment.id = put_off.payment_id AND payment.status <> 'pending'
"""
_COUNT_SQL: Final = "SELECT count(*) FROM put_off_outcomes"


async def wait_briefly(connection: Connection) -> None:
    """Has this transaction fail where it would wait for a lock for more than two seconds."""
    await connection.execute(_WAIT_BRIEFLY_SQL)


async def due(connection: Connection, limit: int) -> list[Place]:
    """Returns payments whose outcomes are due, locked; those that another process is deciding are passed over."""
    return [(row["tenant_id"], row["id"]) for row in await connection.fetch(_DUE_SQL, limit)]


async def put_off(connection: Connection, place: Place, error: str) -> None:
    """Keeps it out of the queue for a while, and says why."""
    await connection.execute(_PUT_OFF_SQL, *place, error)


async def settled(connection: Connection, places: Sequence[Place]) -> None:
    """Forgets that these were put off."""
    await connection.execute(_SETTLED_SQL, *columns_of(places, 2))


async def forget_decided(connection: Connection) -> None:
    """Forgets those whose payments became something else meanwhile."""
    await connection.execute(_FORGET_SQL)


async def count_put_off(connection: Connection) -> int:
    """Returns how many outcomes of all tenants could not be settled, and are tried again later."""
    count: int = await connection.fetchval(_COUNT_SQL)
    return count
