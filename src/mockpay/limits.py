"""Says which limits a newcomer meets first: how many requests, how many payments, and what lifts both."""

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from mockpay.postgres.pool import Connection

LIFT: Final = "--unlimited"
"""The flag that lifts them, which is also the setting MOCKPAY_UNLIMITED."""
_UNITS: Final = ((3600, "hour"), (60, "minute"))

# Of those that hold for every tenant and currency the one that lets the fewest payments pass.
_VELOCITY_SQL: Final = """
SELECT threshold::bigint AS payments, window_secs AS seconds FROM fraud_rules
WHERE rule_type = 'velocity' AND is_active AND tenant_id IS NULL AND currency IS NULL
ORDER BY threshold / window_secs, id LIMIT 1
"""


class Allowance(msgspec.Struct, frozen=True):
    """Allows so many requests, or payments, in so many seconds."""

    count: int
    seconds: int

    def __str__(self) -> str:
        return f"{self.count} in {duration(self.seconds)}"


async def velocity_in_force(connection: "Connection") -> Allowance | None:
    """Returns after how many payments of a tenant a fraud rule flags the next; None where no rule does."""
    row = await connection.fetchrow(_VELOCITY_SQL)
    return None if row is None else Allowance(row["payments"], row["seconds"])


def allowances_in_words(requests: Allowance | None, payments: Allowance | None) -> str:
    """Returns what holds for a tenant, and what lifts it."""
    parts = []
    if requests:
        parts.append(f"{requests.count} requests in {duration(requests.seconds)} for each tenant")
    if payments:
        parts.append(f"{payments.count} payments in {duration(payments.seconds)} before a fraud rule flags the next")
    if not parts:
        return "no limit of requests, and no fraud rule that counts payments"
    return f"{', '.join(parts)}; {LIFT} lifts {'both' if len(parts) > 1 else 'it'}"


def duration(seconds: int) -> str:
    """Returns the time in the largest unit that divides it: 900 is 15 minutes, 90 is 90 seconds."""
    for length, name in _UNITS:
        if seconds % length == 0 and seconds > length:
            return f"{seconds // length} {name}s"
    return f"{seconds} seconds" if seconds > 1 else "a second"
