"""What happens to payments. Each function that changes one is one transaction: the payment, its audit entry, its
webhook delivery and the answer under its idempotency key are all written, or none of them is.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from mockpay import exact_json
from mockpay.audit import store as audit
from mockpay.audit.chain import Break, Content, Entry, first_break
from mockpay.context import Context
from mockpay.errors import NotFound
from mockpay.idempotency.model import Answer, KeyedRequest
from mockpay.idempotency.store import run_once
from mockpay.payments import store
from mockpay.payments.events import NAMES, event_body
from mockpay.payments.fraud import Verdict, assess, velocity_rules
from mockpay.payments.model import Change, Payment, Status, TriggeredBy, apply
from mockpay.payments.requests import ChangePayment, CreatePayment, ListPayments
from mockpay.postgres.pool import Connection
from mockpay.tenants import store as tenants
from mockpay.tenants.model import Tenant
from mockpay.types import Money
from mockpay.webhooks import store as webhooks
from mockpay.webhooks.log import Delivery, of_payment

NO_PAYMENT: Final = "There is no such payment."

View = Callable[[Payment], msgspec.Struct]


async def create(context: Context, tenant: Tenant, request: CreatePayment, keyed: KeyedRequest, view: View) -> Answer:
    """`view` makes the answer's body. Raises InvalidRequest and IdempotencyKeyReused."""
    # Before the transaction: resolving a name is network I/O.
    problem = await context.address_guard.problem_with(request.webhook_url)

    async def work(connection: Connection, now: datetime) -> Answer:
        if problem:  # in here, so that a repeat still gets its stored answer
            raise problem
        verdict = await _assess(connection, tenant.id, request.money, now)
        payment = _new_payment(context.new_id(), tenant.id, request, keyed.key, verdict, now)
        await store.insert(connection, payment)
        triggered_by = TriggeredBy.FRAUD_ENGINE if verdict else TriggeredBy.CREATE_API
        await _record(context, connection, tenant, None, payment, triggered_by)
        return Answer(201, exact_json.encode(view(payment)))

    return await _run(context, tenant, keyed, work)


async def change(
    context: Context,
    tenant: Tenant,
    payment_id: UUID,
    what: Change,
    triggered_by: TriggeredBy,
    keyed: KeyedRequest | None,
    view: View,
) -> Answer:
    """Move a payment to its next state. Raises NotFound, InvalidTransition, InvalidRequest, IdempotencyKeyReused."""

    async def work(connection: Connection, now: datetime) -> Answer:
        before = await store.by_id_locked(connection, tenant.id, payment_id)
        if before is None:
            raise NotFound(NO_PAYMENT)
        after = apply(before, what, now)
        await store.update(connection, after)
        await _record(context, connection, tenant, before, after, triggered_by)
        return Answer(200, exact_json.encode(view(after)))

    return await _run(context, tenant, keyed, work)


async def edit(context: Context, tenant: Tenant, payment_id: UUID, request: ChangePayment) -> Payment:
    """Change what is no part of the payment's state, whatever that is. Raises NotFound and InvalidRequest."""
    given = request.given()
    problem = await context.address_guard.problem_with(given.get("webhook_url"))
    async with context.database.transaction() as connection:
        before = await store.by_id_locked(connection, tenant.id, payment_id)
        if before is None:
            raise NotFound(NO_PAYMENT)
        if problem:
            raise problem
        if not given:
            return before
        after = msgspec.structs.replace(before, **given, updated_at=context.clock.now())
        await store.update_details(connection, after)
    return after


async def get(context: Context, tenant: Tenant, payment_id: UUID) -> Payment:
    """Raises NotFound, also where the payment is another tenant's."""
    async with context.database.connection() as connection:
        return await _get(connection, tenant, payment_id)


async def page(context: Context, tenant: Tenant, query: ListPayments) -> list[Payment]:
    """Newest first; one more than the limit if there are more."""
    async with context.database.connection() as connection:
        return await store.page(connection, tenant.id, query)


async def history(context: Context, tenant: Tenant, payment_id: UUID) -> tuple[Payment, list[Entry], Break | None]:
    """The payment, its audit trail, and where the trail's chain is broken, recomputed now. Raises NotFound."""
    async with context.database.transaction() as connection:
        # Locked: a transition between the two reads would look like a trail that lags behind.
        payment = await store.by_id_locked(connection, tenant.id, payment_id)
        if payment is None:
            raise NotFound(NO_PAYMENT)
        entries = await audit.history(connection, tenant.id, payment_id)
    return payment, entries, first_break(payment_id, entries, payment.status)


async def deliveries(context: Context, tenant: Tenant, payment_id: UUID) -> tuple[Payment, list[Delivery]]:
    """Raises NotFound."""
    async with context.database.connection() as connection:
        payment = await _get(connection, tenant, payment_id)
        return payment, await of_payment(connection, tenant.id, payment_id)


async def _get(connection: Connection, tenant: Tenant, payment_id: UUID) -> Payment:
    payment = await store.by_id(connection, tenant.id, payment_id)
    if payment is None:
        raise NotFound(NO_PAYMENT)
    return payment


async def _run(
    context: Context,
    tenant: Tenant,
    keyed: KeyedRequest | None,
    work: Callable[[Connection, datetime], Awaitable[Answer]],
) -> Answer:
    async with context.database.transaction() as connection:
        now = context.clock.now()
        answer = await run_once(connection, tenant.id, keyed, now, lambda: work(connection, now))
    if not answer.replayed:
        context.wake_worker()
    return answer


async def _assess(connection: Connection, tenant_id: UUID, money: Money, now: datetime) -> Verdict | None:
    rules = await store.active_rules(connection, tenant_id, money.currency)
    counted = velocity_rules(rules)
    if counted:
        await tenants.lock(connection, tenant_id)  # only one after the other are they counted exactly
    counts = {rule.id: await store.count_recent(connection, tenant_id, rule, now) for rule in counted}
    return assess(rules, money, counts)


def _new_payment(
    payment_id: UUID,
    tenant_id: UUID,
    request: CreatePayment,
    idempotency_key: str,
    verdict: Verdict | None,
    now: datetime,
) -> Payment:
    return Payment(
        tenant_id=tenant_id,
        id=payment_id,
        money=request.money,
        status=Status.FLAGGED if verdict else Status.PENDING,
        webhook_url=request.webhook_url,
        description=request.description,
        metadata=request.metadata,
        idempotency_key=idempotency_key,
        flag_reason=verdict.reason if verdict else None,
        flag_rule=verdict.rule if verdict else None,
        created_at=now,
        updated_at=now,
    )


async def _record(
    context: Context,
    connection: Connection,
    tenant: Tenant,
    before: Payment | None,
    after: Payment,
    triggered_by: TriggeredBy,
) -> None:
    """The audit entry of a status change, and the webhook that tells of it."""
    content = Content(
        id=context.new_id(),
        tenant_id=tenant.id,
        payment_id=after.id,
        old_status=before.status.value if before else None,
        new_status=after.status.value,
        triggered_by=triggered_by.value,
        metadata=_audit_metadata(after),
        created_at=after.updated_at,
    )
    await audit.append(connection, content)
    url = after.webhook_url or tenant.webhook_url
    if url and after.status in NAMES:
        await webhooks.enqueue(connection, _new_delivery(context, after, url))


def _audit_metadata(payment: Payment) -> dict[str, Any]:
    """What made the payment what it now is. Amounts are text: exact in every store, and so is their hash."""
    facts: dict[str, str | None] = {
        "amount": f"{payment.money.major_units():f}",
        "currency": payment.money.currency,
        "refund_amount": f"{payment.refund.major_units():f}" if payment.refund else None,
        "refund_reason": payment.refund_reason,
        "failure_code": payment.failure_code,
        "flag_rule": payment.flag_rule,
        "flag_reason": payment.flag_reason,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _new_delivery(context: Context, payment: Payment, url: str) -> webhooks.NewDelivery:
    event_id = context.new_id()
    body = event_body(payment, event_id)
    return webhooks.NewDelivery(
        tenant_id=payment.tenant_id,
        id=context.new_id(),
        payment_id=payment.id,
        event_id=event_id,
        event=body.event,
        url=url,
        payload=exact_json.encode(body),
        max_attempts=context.settings.webhook_attempts,
        created_at=payment.updated_at,
    )
