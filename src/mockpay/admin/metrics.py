"""The figures of a whole server: a snapshot for the administrator. Amounts are exact; sums are made in minor units."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec

from mockpay import __version__
from mockpay.context import Context
from mockpay.payments.model import Status
from mockpay.postgres.pool import Connection
from mockpay.types import Money, rfc3339
from mockpay.webhooks import log

SUCCEEDED: Final = (Status.SUCCESS, Status.REFUNDED, Status.PARTIALLY_REFUNDED)
VOLUME_NOTE: Final = (
    "total_volume and average_amount add up amounts of different currencies as if they were one; "
    "volume_by_currency has figures that mean something."
)

_PAYMENTS_SQL: Final = """
SELECT currency, status, count(*) AS payments, sum(amount_minor_units)::bigint AS minor_units,
       count(*) FILTER (WHERE created_at > $1) AS recent
FROM payments GROUP BY currency, status
"""
_FINISHED_SQL: Final = """
SELECT count(*) FILTER (WHERE status = 'delivered') AS delivered, count(*) FILTER (WHERE status = 'dead') AS dead,
       coalesce(avg(greatest(attempts - 1, 0)), 0)::float8 AS average_retries
FROM webhook_deliveries WHERE status <> 'pending'
"""
_ATTEMPTS_SQL: Final = """
SELECT count(*) AS total, count(*) FILTER (WHERE response_status BETWEEN 200 AND 299) AS successful
FROM delivery_attempts
"""
_AUDIT_SQL: Final = """
SELECT count(*) AS total, count(*) FILTER (WHERE sequence = 1) AS payments,
       count(*) FILTER (WHERE created_at > $1) AS recent
FROM audit_log
"""
_SERVER_SQL: Final = "SELECT current_setting('server_version')"


class CurrencyVolume(msgspec.Struct, frozen=True, kw_only=True):
    payments: int
    total_volume: Decimal
    average_amount: Decimal


class PaymentMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """`success_rate_pct` is of the payments that were decided: those that succeeded, refunded ones too, or failed."""

    total: int
    by_status: dict[str, int]
    last_24_hours: int
    average_amount: Decimal
    total_volume: Decimal
    volume_by_currency: dict[str, CurrencyVolume]
    volume_note: str
    success_rate_pct: float


class WebhookMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Of the deliveries that are kept. `delivery_rate_pct` and `average_retries` are of those that are over."""

    total_attempts: int
    successful: int
    failed: int
    delivery_rate_pct: float
    average_retries: float
    dlq_depth: int
    queue_depth: int
    oldest_pending_seconds: float


class FraudMetrics(msgspec.Struct, frozen=True, kw_only=True):
    total_flagged: int
    flagged_last_24h: int
    flag_rate_pct: float


class AuditMetrics(msgspec.Struct, frozen=True, kw_only=True):
    total_transitions: int
    payments_with_history: int
    transitions_last_24h: int


class SystemMetrics(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    database: str
    job_queue: str
    environment: str
    uptime_seconds: float


class MetricsView(msgspec.Struct, frozen=True, kw_only=True):
    generated_at: str
    payments: PaymentMetrics
    webhooks: WebhookMetrics
    fraud: FraudMetrics
    audit: AuditMetrics
    system: SystemMetrics


async def snapshot(context: Context) -> MetricsView:
    """All figures are of one moment."""
    now = context.clock.now()
    since = now - timedelta(days=1)
    async with context.database.snapshot() as connection:
        by_currency = await connection.fetch(_PAYMENTS_SQL, since)
        return MetricsView(
            generated_at=rfc3339(now),
            payments=_payments(by_currency),
            webhooks=await _webhooks(connection),
            fraud=_fraud(by_currency),
            audit=await _audit(connection, since),
            system=await _system(connection, context, now),
        )


def _payments(rows: list[Any]) -> PaymentMetrics:
    by_status: Counter[str] = Counter()
    volumes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for row in rows:
        by_status[row["status"]] += row["payments"]
        volumes[row["currency"]] += row["minor_units"]
        counts[row["currency"]] += row["payments"]
    total = by_status.total()
    major = {currency: Money(minor_units, currency).major_units() for currency, minor_units in volumes.items()}
    succeeded = sum(by_status[status] for status in SUCCEEDED)
    volume = sum(major.values(), Decimal())
    return PaymentMetrics(
        total=total,
        by_status={status.value: by_status[status] for status in Status},
        last_24_hours=sum(row["recent"] for row in rows),
        average_amount=average(volume, total),
        total_volume=volume,
        volume_by_currency={
            currency: CurrencyVolume(
                payments=counts[currency],
                total_volume=major[currency],
                average_amount=average(major[currency], counts[currency]),
            )
            for currency in sorted(major)
        },
        volume_note=VOLUME_NOTE,
        success_rate_pct=percent(succeeded, succeeded + by_status[Status.FAILED]),
    )


def _fraud(rows: Iterable[Any]) -> FraudMetrics:
    flagged = [row for row in rows if row["status"] == Status.FLAGGED]
    total = sum(row["payments"] for row in flagged)
    return FraudMetrics(
        total_flagged=total,
        flagged_last_24h=sum(row["recent"] for row in flagged),
        flag_rate_pct=percent(total, sum(row["payments"] for row in rows)),
    )


async def _webhooks(connection: Connection) -> WebhookMetrics:
    finished = await connection.fetchrow(_FINISHED_SQL)
    attempts = await connection.fetchrow(_ATTEMPTS_SQL)
    queue = await log.queue_state(connection)
    assert finished is not None
    assert attempts is not None
    return WebhookMetrics(
        total_attempts=attempts["total"],
        successful=attempts["successful"],
        failed=attempts["total"] - attempts["successful"],
        delivery_rate_pct=percent(finished["delivered"], finished["delivered"] + finished["dead"]),
        average_retries=round(finished["average_retries"], 2),
        dlq_depth=queue.dead,
        queue_depth=queue.pending,
        oldest_pending_seconds=queue.oldest_pending_seconds,
    )


async def _audit(connection: Connection, since: datetime) -> AuditMetrics:
    row = await connection.fetchrow(_AUDIT_SQL, since)
    assert row is not None
    return AuditMetrics(
        total_transitions=row["total"], payments_with_history=row["payments"], transitions_last_24h=row["recent"]
    )


async def _system(connection: Connection, context: Context, now: datetime) -> SystemMetrics:
    version: str = await connection.fetchval(_SERVER_SQL)
    return SystemMetrics(
        version=__version__,
        database=f"PostgreSQL {version}",
        job_queue="PostgreSQL, table webhook_deliveries",
        environment=context.settings.env,
        uptime_seconds=round(max(0.0, (now - context.started_at).total_seconds()), 3),
    )


def percent(part: int, whole: int) -> float:
    """Two decimals; 0 of nothing."""
    return round(100 * part / whole, 2) if whole else 0.0


def average(volume: Decimal, count: int) -> Decimal:
    """In major units, four decimals at most; 0 of nothing."""
    return Decimal(f"{round(volume / count, 4).normalize():f}") if count else Decimal(0)
