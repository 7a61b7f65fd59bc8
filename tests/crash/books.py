"""Do the books agree: what clients were told, what the database holds, what the receiver got?"""

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from mockpay.payments.events import NAMES
from mockpay.postgres.pool import Connection, connect
from tests.crash.clients import NOBODY_LISTENS
from tests.crash.ledger import Ledger, Told
from tests.support.databases import UNEVEN
from tests.support.fakes import Received
from tests.support.model import money
from tests.support.processes import run, wait_until

DRAIN_SECONDS: Final = 120.0
NAMES_OF: Final = {status.value: event for status, event in NAMES.items()}
"""The event of each status that is news."""

_UNDER_WAY = """
SELECT (SELECT count(*) FROM webhook_deliveries WHERE status = 'pending')
     + (SELECT count(*) FROM payments WHERE outcome_due_at IS NOT NULL AND status = 'pending')
"""
_PAYMENTS = """
SELECT id::text, tenant_id::text, idempotency_key, status, webhook_url, amount_minor_units, refund_minor_units
FROM payments
"""
_TRAIL = "SELECT payment_id::text, old_status, new_status, triggered_by FROM audit_log ORDER BY payment_id, sequence"
_KEYS = "SELECT tenant_id::text, key, answer_body FROM idempotency_keys"
_DELIVERIES = """
SELECT payment_id::text, event, event_id::text, url, payload, status, attempts, max_attempts FROM webhook_deliveries
"""
_UNLOGGED = """
SELECT delivery.id FROM webhook_deliveries AS delivery
-- One that is under way, as may be in a backup, is counted already.
WHERE claimed_at IS NULL AND attempts <> (
    SELECT count(*) FROM delivery_attempts AS attempt
    WHERE attempt.tenant_id = delivery.tenant_id AND attempt.delivery_id = delivery.id AND copy = 0
)
"""
_COUNTED = re.compile(r"(\d+) payments, (\d+) audit entries: intact")

Row = dict[str, Any]
Step = tuple[str | None, str, str]
"""From a status, to a status, and who did it."""


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


class Books(msgspec.Struct):
    """What the database holds. Payments by their id, stored answers by tenant and key."""

    payments: dict[str, Row]
    trail: dict[str, list[Step]]
    answers: dict[tuple[str, str], bytes]
    deliveries: dict[str, Row]
    """By the id of the event."""


def wait_until_drained(url: str) -> None:
    """Every planned outcome came, and every delivery is over."""
    wait_until(lambda: asyncio.run(_value(url, _UNDER_WAY)) == 0, DRAIN_SECONDS)


def check(url: str, ledger: Ledger, received: Iterable[Received], *, is_older: bool = False) -> Findings:
    """`is_older`: the receiver got more since, of which these books, a backup, know nothing."""
    found, entries = asyncio.run(_check(url, ledger, list(received), is_older=is_older))
    verified = run("audit", "verify", MOCKPAY_DATABASE_URL=url)
    *broken, counted = verified.stdout.splitlines() or [verified.stderr]
    match = _COUNTED.fullmatch(counted)
    if verified.returncode or not match or (int(match[1]), int(match[2])) != (found.checked["payments"], entries):
        found.broken_chains += broken or [f"there are {found.checked['payments']} and {entries}: {counted}"]
    return found


async def _check(url: str, ledger: Ledger, received: list[Received], *, is_older: bool) -> tuple[Findings, int]:
    connection = await connect(url)
    try:
        books = await _read(connection)
        found = Findings(checked={"answers": len(ledger.told), "payments": len(books.payments)})
        _check_payments(found, ledger, books)
        _check_answers(found, ledger, books)
        _check_deliveries(found, books)
        _check_messages(found, books, received, is_older=is_older)
        await _check_made(found, connection, ledger)
        found.disagreements += [
            f"attempts of {row['id']} are not all logged" for row in await connection.fetch(_UNLOGGED)
        ]
        found.disagreements += [f"figures differ: {tuple(row)}" for row in await connection.fetch(UNEVEN)]
        return found, sum(map(len, books.trail.values()))
    finally:
        await connection.close()


async def _read(connection: Connection) -> Books:
    payments = {row["id"]: dict(row) for row in await connection.fetch(_PAYMENTS)}
    trail: dict[str, list[Step]] = {payment_id: [] for payment_id in payments}
    for payment_id, *step in await connection.fetch(_TRAIL):
        trail[payment_id].append((step[0], step[1], step[2]))
    answers = {(row["tenant_id"], row["key"]): row["answer_body"] for row in await connection.fetch(_KEYS)}
    deliveries = {row["event_id"]: dict(row) for row in await connection.fetch(_DELIVERIES)}
    return Books(payments, trail, answers, deliveries)


def _check_payments(found: Findings, ledger: Ledger, books: Books) -> None:
    """One for each key, none that nobody asked for, and what was asked was done, step by step."""
    keys = Counter((payment["tenant_id"], payment["idempotency_key"]) for payment in books.payments.values())
    found.duplicates += [f"{count} payments have the key {key}" for key, count in keys.items() if count > 1]
    refunds = {asked.payment_id: asked.amount for asked in ledger.asked.values() if asked.action == "refund"}
    sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for payment_id, payment in books.payments.items():
        asked = ledger.asked.get(payment["idempotency_key"])
        if asked is None or asked.tenant_id != payment["tenant_id"] or asked.action != "create":
            found.disagreements.append(f"nobody asked for {payment}")
            continue
        if books.trail[payment_id] != steps_to(payment["status"], is_planned=asked.outcome is not None):
            found.disagreements.append(f"{payment_id} is {payment['status']}, its trail {books.trail[payment_id]}")
        if asked.outcome and payment["status"] not in (asked.outcome, "pending", "flagged"):
            found.disagreements.append(f"{payment_id} is {payment['status']}, and was to be {asked.outcome}")
        sums[payment["tenant_id"]]["paid"] += payment["amount_minor_units"] - asked.amount
        sums[payment["tenant_id"]]["refunded"] += _refunded(payment) - (
            refunds.get(payment_id, 0) if payment["status"] in ("refunded", "partially_refunded") else 0
        )
    found.disagreements += [
        f"{tenant}: {amount} minor units more {what} than asked" for tenant, each in sums.items()
        for what, amount in each.items() if amount
    ]  # fmt: skip


def steps_to(status: str, *, is_planned: bool) -> list[Step]:
    """All that happened to a payment that has that status, if it was created by a client of these."""
    if status == "flagged":
        return [(None, "flagged", "fraud_engine")]
    steps: list[Step] = [(None, "pending", "create_api")]
    if status != "pending":
        first = "failed" if status == "failed" else "success"
        steps.append(("pending", first, "scenario" if is_planned else "simulate_api"))
    if status in ("refunded", "partially_refunded"):
        steps.append(("success", status, "refund_api"))
    return steps


def _check_answers(found: Findings, ledger: Ledger, books: Books) -> None:
    """What a client was told is there, and is what anybody else who asks the same is told."""
    for told in ledger.told:
        payment = books.payments.get(told.payment_id)
        if payment is None or payment["tenant_id"] != told.asked.tenant_id:
            found.losses.append(f"{told.asked.key}: its payment {told.payment_id} is gone")
        elif books.answers.get((told.asked.tenant_id, told.asked.key)) != told.body:
            found.losses.append(f"{told.asked.key}: another answer is stored than was given")
        elif not _is_so(told, payment, books.trail[told.payment_id]):
            found.losses.append(f"{told.asked.key}: {told.status} was told, and the payment is {payment}")
    for (tenant, key), body in books.answers.items():
        payment = books.payments.get(msgspec.json.decode(body)["payment_id"])
        if payment is None or payment["tenant_id"] != tenant:
            found.losses.append(f"{key}: the payment of its stored answer is gone")
        elif key.startswith("create") and payment["idempotency_key"] != key:
            found.duplicates.append(f"{key} is answered with the payment of {payment['idempotency_key']}")


def _is_so(told: Told, payment: Row, trail: list[Step]) -> bool:
    """Whether what was told happened, whatever happened after it."""
    place = {"create": 0, "simulate": 1, "refund": 2}[told.asked.action]
    if len(trail) <= place or trail[place][1] != told.status:
        return False
    if told.asked.action == "refund":
        return _refunded(payment) == told.asked.amount
    return bool(payment["amount_minor_units"] == told.asked.amount)


def _refunded(payment: Row) -> int:
    return payment["refund_minor_units"] or 0


def _check_deliveries(found: Findings, books: Books) -> None:
    """One for each change that is news, of a payment with a URL, and to that URL; and it tells of that change."""
    wanted = {
        (payment_id, NAMES_OF[status])
        for payment_id, steps in books.trail.items() if books.payments[payment_id]["webhook_url"]
        for _, status, _ in steps if status in NAMES_OF
    }  # fmt: skip
    queued = Counter((each["payment_id"], each["event"]) for each in books.deliveries.values())
    found.losses += [f"no delivery of {event} of {payment_id}" for payment_id, event in wanted - queued.keys()]
    found.disagreements += [f"nothing happened for {what}" for what in queued.keys() - wanted]
    found.duplicates += [f"{count} deliveries of {what}" for what, count in queued.items() if count > 1]
    for event_id, each in books.deliveries.items():
        payment = books.payments[each["payment_id"]]
        if each["url"] != payment["webhook_url"]:
            found.disagreements.append(f"{event_id} goes to {each['url']}, and its payment is {payment}")
        if not _tells(each, payment, books.trail[each["payment_id"]]):
            found.disagreements.append(f"{event_id} tells {each['payload']}, and its payment is {payment}")
        if each["status"] == "dead" and each["attempts"] < each["max_attempts"]:
            found.losses.append(f"{event_id} is dead after {each['attempts']} attempts")
        if each["url"] == NOBODY_LISTENS and each["status"] == "delivered":
            found.disagreements.append(f"{event_id} counts as delivered, where nobody listens")
    found.checked["deliveries"] = len(books.deliveries)
    flagged = [id_ for id_, each in books.payments.items() if each["status"] == "flagged" and each["webhook_url"]]
    for payment_id in flagged:
        if queued[payment_id, NAMES_OF["flagged"]] != 1:
            found.disagreements.append(f"{payment_id} is flagged, and has not one delivery")
    found.checked["flagged ones with a webhook"] = len(flagged)
    found.checked["dead ones"] = sum(each["status"] == "dead" for each in books.deliveries.values())


def _tells(delivery: Row, payment: Row, trail: list[Step]) -> bool:
    body = msgspec.json.decode(delivery["payload"])
    told = {name: body[name] for name in ("event", "event_id", "payment_id")}
    if told != {name: delivery[name] for name in told} or body["currency"] != "USD":
        return False
    if NAMES_OF[body["status"]] != body["event"] or body["status"] not in {status for _, status, _ in trail}:
        return False
    amounts = {"amount": payment["amount_minor_units"]}
    if "refund_amount" in body:
        amounts["refund_amount"] = _refunded(payment)
    return all(float(body[name]) == float(money(amount)) for name, amount in amounts.items())


def _check_messages(found: Findings, books: Books, received: list[Received], *, is_older: bool) -> None:
    """Each is, to the byte, what is in the books; and what counts as delivered was accepted by the receiver."""
    accepted = set()
    for message in received:
        event_id = message.headers["webhook-id"]
        delivery = books.deliveries.get(event_id)
        if delivery is None:
            if not is_older:
                found.losses.append(f"{event_id} came, and nothing is known of it")
        elif message.body.decode() != delivery["payload"]:
            found.disagreements.append(f"{event_id} came as {message.body!r}, and is {delivery['payload']}")
        if message.answered == 200:
            accepted.add(event_id)
    found.losses += [
        f"{event_id} counts as delivered, and was never accepted" for event_id, each in books.deliveries.items()
        if each["status"] == "delivered" and event_id not in accepted
    ]  # fmt: skip
    found.checked["messages"] = len(received)


async def _check_made(found: Findings, connection: Connection, ledger: Ledger) -> None:
    for table in {table for table, _ in ledger.made}:
        there = {row["id"] for row in await connection.fetch(f"SELECT id::text FROM {table}")}
        found.losses += [f"{id_} of {table} is gone" for of, id_ in ledger.made if of == table and id_ not in there]
    found.checked["tenants and rules"] = len(ledger.made)


async def _value(url: str, statement: str) -> Any:
    connection: Connection = await connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()
