"""The figures of a whole server: a snapshot for the administrator. Amounts are exact; sums are made in minor units."""

from collections import Counter
from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec

from mockpay import __version__, rollups
from mockpay.context import Context
from mockpay.payments.model import Status
from mockpay.postgres.pool import Connection
from mockpay.rollups import Figure, Rollup
from mockpay.types import Money, rfc3339
from mockpay.webhooks import log
from mockpay.webhooks.log import QueueState

SUCCEEDED: Final = (Status.SUCCESS, Status.REFUNDED, Status.PARTIALLY_REFUNDED)
VOLUME_NOTE: Final = (
    "total_volume and average_amount add up amounts of different currencies as if they were one; "
    "volume_by_currency has figures that mean something."
)

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
    async with context.database.snapshot() as connection:
        counted = await rollups.read(connection, list(Figure), now - rollups.DAY)
        of = {figure: [each for each in counted if each.figure is figure] for figure in Figure}
        return MetricsView(
            generated_at=rfc3339(now),
            payments=_payments(of[Figure.PAYMENTS]),
            webhooks=_webhooks(of[Figure.DELIVERIES], of[Figure.ATTEMPTS], await log.queue_state(connection)),
            fraud=_fraud(of[Figure.PAYMENTS]),
            audit=_audit(of[Figure.AUDIT_ENTRIES]),
            system=await _system(connection, context, now),
        )


def _payments(counted: list[Rollup]) -> PaymentMetrics:
    by_status: Counter[str] = Counter()
    volumes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for each in counted:
        by_status[each.label] += each.rows
        volumes[each.currency] += each.total
        counts[each.currency] += each.rows
    total = by_status.total()
    major = {currency: Money(minor_units, currency).major_units() for currency, minor_units in volumes.items()}
    succeeded = sum(by_status[status] for status in SUCCEEDED)
    volume = sum(major.values(), Decimal())
    return PaymentMetrics(
        total=total,
        by_status={status.value: by_status[status] for status in Status},
        last_24_hours=sum(each.recent for each in counted),
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


def _fraud(payments: list[Rollup]) -> FraudMetrics:
    flagged = [each for each in payments if each.label == Status.FLAGGED]
    total = sum(each.rows for each in flagged)
    return FraudMetrics(
        total_flagged=total,
        flagged_last_24h=sum(each.recent for each in flagged),
        flag_rate_pct=percent(total, sum(each.rows for each in payments)),
    )


def _webhooks(deliveries: list[Rollup], attempts: list[Rollup], queue: QueueState) -> WebhookMetrics:
    finished = {each.label: each.rows for each in deliveries if each.label != "pending"}
    over = sum(finished.values())
    tried = {each.label: each.rows for each in attempts}
    return WebhookMetrics(
        total_attempts=sum(tried.values()),
        successful=tried.get("successful", 0),
        failed=tried.get("failed", 0),
        delivery_rate_pct=percent(finished.get("delivered", 0), over),
        average_retries=round(sum(each.total for each in deliveries) / over, 2) if over else 0.0,
        dlq_depth=queue.dead,
        queue_depth=queue.pending,
        oldest_pending_seconds=queue.oldest_pending_seconds,
    )


def _audit(entries: list[Rollup]) -> AuditMetrics:
    return AuditMetrics(
        total_transitions=sum(each.rows for each in entries),
        payments_with_history=sum(each.rows for each in entries if each.label == "first"),
        transitions_last_24h=sum(each.recent for each in entries),
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
