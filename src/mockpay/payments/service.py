"""What happens to payments. Each function that changes one is one transaction: the payment, its audit entry, its
webhook delivery and the answer under its idempotency key are all written, or none of them is.
"""

import functools
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID

import msgspec

from mockpay.audit import store as audit
from mockpay.audit.chain import Break, Current, Entry, first_break
from mockpay.context import Context
from mockpay.errors import ApiError, NotFound
from mockpay.idempotency.model import Answer, KeyedRequest
from mockpay.idempotency.store import run_once
from mockpay.payments import store
from mockpay.payments.creation import Creation, create_together
from mockpay.payments.model import Change, Fail, Payment, Succeed, TriggeredBy, apply
from mockpay.payments.recording import audit_content, audit_facts, queue_webhook
from mockpay.payments.requests import ChangePayment, CreatePayment, ListPayments
from mockpay.payments.transition import NO_PAYMENT, Transition, move_together
from mockpay.payments.views import View
from mockpay.postgres.group_commit import GroupCommit
from mockpay.postgres.pool import Connection
from mockpay.tenants import store as tenants
from mockpay.tenants.model import Tenant
from mockpay.types import given
from mockpay.webhooks.log import Delivery, of_payment

BATCH_MAX: Final = 64
"""Payments in one statement. Larger ones gain nothing more, and hold their locks for longer."""
LINGER_SECONDS: Final = 0.004
"""From 3 to 5 milliseconds made no difference that stood out; without, the batches of two processes are small."""

Work = TypeVar("Work")
Outcome = TypeVar("Outcome")


async def create(context: Context, tenant: Tenant, request: CreatePayment, keyed: KeyedRequest) -> Answer:
    """Raises InvalidRequest and IdempotencyKeyReused."""
    # Before the transaction: resolving a name is network I/O.
    problem = await context.address_guard.problem_with(tenant.id, request.webhook_url)
    return await _creations(context).submit(Creation(tenant, request, keyed, problem))


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

    asked = Transition(
        tenant=tenant, payment_id=payment_id, change=what, triggered_by=triggered_by, keyed=keyed, view=view
    )
    # Webhooks that may suffer faults by a rule ask the rules one after the other.
    answer = None if tenant.has_faults else await _transitions(context).submit(asked)
    return answer or await _move_alone(context, asked)


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
    problem = await context.address_guard.problem_with(tenant.id, changes.get("webhook_url"))
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
    return payment, entries, first_break(payment_id, entries, Current(payment.status.value, audit_facts(payment)))


async def deliveries(context: Context, tenant: Tenant, payment_id: UUID) -> tuple[Payment, list[Delivery]]:
    """Raises NotFound."""
    async with context.database.connection() as connection:
        payment = await _get(connection, tenant, payment_id)
        return payment, await of_payment(connection, tenant.id, payment_id)


def _creations(context: Context) -> GroupCommit[Creation, Answer]:
    return _group_commit(context, create_together)


def _transitions(context: Context) -> GroupCommit[Transition, Answer | None]:
    return _group_commit(context, move_together)


def _group_commit(
    context: Context, write: Callable[[Context, Sequence[Work]], Awaitable[list[Outcome | ApiError]]]
) -> GroupCommit[Work, Outcome]:
    def make() -> GroupCommit[Work, Outcome]:
        # With several processes each has a part of the requests, and its batches would stay small.
        linger_seconds = LINGER_SECONDS if context.settings.workers > 1 else 0.0
        return GroupCommit(functools.partial(write, context), batch_max=BATCH_MAX, linger_seconds=linger_seconds)

    return context.group_commits.of(write, make)


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
    await audit.append(connection, audit_content(context.new_id(), before.status, after, triggered_by))
    await queue_webhook(context, connection, tenant, after)
    return after


async def _move_alone(context: Context, asked: Transition) -> Answer:
    async with context.database.transaction() as connection:
        now = context.clock.now()
        # Before the key is taken: that is the order in which those that are written together wait for each other.
        before = await store.by_id_locked(connection, *asked.place)

        async def work() -> Answer:
            if before is None:
                raise NotFound(NO_PAYMENT)
            after = await _apply(context, connection, asked.tenant, before, asked.change, asked.triggered_by, now)
            return asked.answer(after)

        answer = await run_once(connection, asked.tenant.id, asked.keyed, now, work)
    if not answer.replayed:
        context.wake_worker()
    return answer
