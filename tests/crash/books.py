"""Do the books agree: what clients were told, what the database holds, what the receiver got?"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from mockpay.payments.events import NAMES
from mockpay.postgres.pool import Connection, connect
from tests.crash.clients import Ledger
from tests.support.databases import UNEVEN
from tests.support.fakes import Received
from tests.support.processes import run, wait_until

DRAIN_SECONDS: Final = 120.0
ENTRIES: Final = {"pending": 1, "flagged": 1, "success": 2, "failed": 2, "refunded": 3, "partially_refunded": 3}
"""How many entries the trail of a payment in a status has."""

_PENDING = "SELECT count(*) FROM webhook_deliveries WHERE status = 'pending'"
_PAYMENTS = (
    "SELECT id, tenant_id, idempotency_key, status, webhook_url, amount_minor_units, refund_minor_units FROM payments"
)
_TRAIL = "SELECT payment_id, new_status FROM audit_log"
_KEYS = "SELECT tenant_id, key, answer_body FROM idempotency_keys"
_DELIVERIES = "SELECT payment_id, event, event_id, status, attempts FROM webhook_deliveries"
_UNLOGGED = """
SELECT delivery.id FROM webhook_deliveries AS delivery
-- One that is under way, as may be in a backup, is counted already.
WHERE claimed_at IS NULL AND attempts <> (
    SELECT count(*) FROM delivery_attempts AS attempt
    WHERE attempt.tenant_id = delivery.tenant_id AND attempt.delivery_id = delivery.id AND copy = 0
)
"""


class Findings(msgspec.Struct):
    """Nothing but `checked` should have anything in it."""

    checked: dict[str, int] = {}
    losses: list[str] = []
    duplicates: list[str] = []
    broken_chains: list[str] = []
    disagreements: list[str] = []

    @property
    def all(self) -> list[str]:
        return [*self.losses, *self.duplicates, *self.broken_chains, *self.disagreements]


def wait_until_drained(url: str) -> None:
    """Every delivery is over."""
    wait_until(lambda: asyncio.run(_value(url, _PENDING)) == 0, DRAIN_SECONDS)


def check(url: str, ledger: Ledger, received: Iterable[Received]) -> Findings:
    found = asyncio.run(_check(url, ledger, {each.headers["webhook-id"] for each in received}))
    verified = run("audit", "verify", MOCKPAY_DATABASE_URL=url)
    *broken, counted = verified.stdout.splitlines() or [verified.stderr]
    if verified.returncode or "intact" not in counted:
        found.broken_chains += broken or [counted]
    return found


async def _check(url: str, ledger: Ledger, received: set[str]) -> Findings:
    connection = await connect(url)
    try:
        payments = {str(row["id"]): dict(row) for row in await connection.fetch(_PAYMENTS)}
        trail: dict[str, Counter[str]] = {payment_id: Counter() for payment_id in payments}
        for row in await connection.fetch(_TRAIL):
            trail[str(row["payment_id"])][row["new_status"]] += 1
        found = Findings()
        found.checked = {"answers": len(ledger.told), "payments": len(payments)}
        _check_answers(found, ledger, payments, {
            (str(row["tenant_id"]), row["key"]): row["answer_body"] for row in await connection.fetch(_KEYS)
        })  # fmt: skip
        _check_payments(found, ledger, payments, trail)
        _check_deliveries(found, payments, trail, [dict(row) for row in await connection.fetch(_DELIVERIES)], received)
        found.disagreements += [
            f"attempts of {row['id']} are not all logged" for row in await connection.fetch(_UNLOGGED)
        ]
        found.disagreements += [f"figures differ: {tuple(row)}" for row in await connection.fetch(UNEVEN)]
        return found
    finally:
        await connection.close()


def _check_answers(
    found: Findings, ledger: Ledger, payments: dict[str, dict[str, Any]], stored: dict[tuple[str, str], bytes]
) -> None:
    """What a client was told is there, and is what anybody else who asks the same is told."""
    for told in ledger.told:
        payment = payments.get(told.payment_id)
        if payment is None or str(payment["tenant_id"]) != told.tenant_id:
            found.losses.append(f"{told.key}: its payment {told.payment_id} is gone")
            continue
        if stored.get((told.tenant_id, told.key)) != told.body:
            found.losses.append(f"{told.key}: another answer is stored than was given")
        right_amount = {
            "create": payment["amount_minor_units"] == told.amount,
            "simulate": payment["status"] not in ("pending", "flagged"),
            "refund": payment["refund_minor_units"] == told.amount,
        }
        if not right_amount[told.action]:
            found.losses.append(f"{told.key}: the payment is {payment}")


def _check_payments(
    found: Findings, ledger: Ledger, payments: dict[str, dict[str, Any]], trail: dict[str, Counter[str]]
) -> None:
    """One for each key, none that nobody asked for, and as many entries as its status took."""
    keys = Counter((payment["tenant_id"], payment["idempotency_key"]) for payment in payments.values())
    found.duplicates += [f"{count} payments have the key {key}" for key, count in keys.items() if count > 1]
    asked = set(ledger.asked)
    found.disagreements += [f"nobody asked for {key}" for _, key in keys if key not in asked]
    for payment_id, payment in payments.items():
        entries = trail[payment_id]
        if entries.total() != ENTRIES[payment["status"]] or max(entries.values(), default=0) > 1:
            found.disagreements.append(f"{payment_id} is {payment['status']}, and its trail {dict(entries)}")
    told = {each.payment_id: each.amount for each in ledger.told if each.action == "create"}
    in_database = sum(payment["amount_minor_units"] for name, payment in payments.items() if name in told)
    if sum(told.values()) != in_database:
        found.disagreements.append(f"clients were told of {sum(told.values())} in all, and there is {in_database}")


def _check_deliveries(
    found: Findings,
    payments: dict[str, dict[str, Any]],
    trail: dict[str, Counter[str]],
    deliveries: list[dict[str, Any]],
    received: set[str],
) -> None:
    """One for each change that is news, of a payment with a URL; and it came, or is dead."""
    wanted = {
        (payment_id, NAMES_OF[status])
        for payment_id, entries in trail.items() if payments[payment_id]["webhook_url"]
        for status in entries if status in NAMES_OF
    }  # fmt: skip
    queued = Counter((str(each["payment_id"]), each["event"]) for each in deliveries)
    found.losses += [f"no delivery of {event} of {payment_id}" for payment_id, event in wanted - queued.keys()]
    found.disagreements += [f"nothing happened for {what}" for what in queued.keys() - wanted]
    found.duplicates += [f"{count} deliveries of {what}" for what, count in queued.items() if count > 1]
    for each in deliveries:
        if each["status"] == "delivered" and str(each["event_id"]) not in received:
            found.losses.append(f"{each['event_id']} counts as delivered, and never came")
        if each["status"] == "dead" and each["attempts"] < 1:
            found.losses.append(f"{each['event_id']} is dead without an attempt")
    found.checked["deliveries"] = len(deliveries)


NAMES_OF: Final = {status.value: event for status, event in NAMES.items()}


async def _value(url: str, statement: str) -> Any:
    connection: Connection = await connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()
