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
from mockpay.faults.service import fault_of_webhook
from mockpay.idempotency.model import Answer, KeyedRequest
from mockpay.idempotency.store import run_once
from mockpay.payments import store
from mockpay.payments.events import NAMES, event_body
from mockpay.payments.fraud import Verdict, assess, velocity_rules
from mockpay.payments.model import Change, Fail, Payment, Status, Succeed, TriggeredBy, apply
from mockpay.payments.outcomes import planned
from mockpay.payments.requests import ChangePayment, CreatePayment, ListPayments
from mockpay.postgres.pool import Connection
from mockpay.tenants import store as tenants
from mockpay.tenants.model import Tenant
from mockpay.types import Money, given
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
        outcome = None if verdict else planned(request, keyed.key, context.new_seed())
        new = _new_payment(context.new_id(), tenant.id, request, keyed.key, verdict, now)
        payment = await store.insert(connection, msgspec.structs.replace(new, outcome=outcome))
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
        after = await _apply(context, connection, tenant, before, what, triggered_by, now)
        return Answer(200, exact_json.encode(view(after)))

    return await _run(context, tenant, keyed, work)


async def settle_due_outcome(context: Context) -> bool:
    """Let one payment become by itself what was planned for it, if that is due. False if none is.

    The payment's row is its place in the queue: killed in the middle of this, it is still there.
    """
    async with context.database.transaction() as connection:
        payment = await store.due_outcome(connection)
        if payment is None:
            return False
        assert payment.outcome is not None, "it is what made it due"
        tenant = await tenants.by_id(connection, payment.tenant_id)
        assert tenant is not None, "a payment has a tenant"
        code = payment.outcome.failure_code
        change = Succeed() if code is None else Fail(code)
        await _apply(context, connection, tenant, payment, change, TriggeredBy.SCENARIO, context.clock.now())
    context.wake_worker()
    return True


async def edit(context: Context, tenant: Tenant, payment_id: UUID, request: ChangePayment) -> Payment:
    """Change what is no part of the payment's state, whatever that is. Raises NotFound and InvalidRequest."""
    changes = given(request)
    problem = await context.address_guard.problem_with(changes.get("webhook_url"))
    async with context.database.transaction() as connection:
        before = await store.by_id_locked(connection, tenant.id, payment_id)
        if before is None:
            raise NotFound(NO_PAYMENT)
        if problem:
            raise problem
        if not changes:
            return before
        after = msgspec.structs.replace(before, **changes, updated_at=context.clock.now())
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


async def _apply(
    context: Context,
    connection: Connection,
    tenant: Tenant,
    before: Payment,
    what: Change,
    triggered_by: TriggeredBy,
    now: datetime,
) -> Payment:
    """Of a payment whose row is locked. Raises InvalidTransition and InvalidRequest."""
    after = apply(before, what, now)
    await store.update(connection, after)
    await _record(context, connection, tenant, before, after, triggered_by)
    return after


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
        payment_method=None if request.payment_method is msgspec.UNSET else request.payment_method,
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
        delivery = _new_delivery(context, after, url)
        suffers = await fault_of_webhook(connection, tenant, NAMES[after.status])
        if suffers:
            delivery = msgspec.structs.replace(
                delivery, fault=suffers.fault, fault_rule=suffers.rule_id, fault_seed=suffers.seed
            )
        await webhooks.enqueue(connection, delivery)


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
