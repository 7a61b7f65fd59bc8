"""What happens to payments. Each function that changes one is one transaction: the payment, its audit entry, its
webhook delivery and the answer under its idempotency key are all written, or none of them is.
"""

import functools
from typing import Final, TypeVar
from uuid import UUID

import msgspec

from mockpay.audit import store as audit
from mockpay.audit.chain import Break, Current, Entry, first_break
from mockpay.context import Context
from mockpay.errors import NotFound
from mockpay.idempotency.model import Answer, KeyedRequest
from mockpay.payments import store
from mockpay.payments.creation import Creation, create_together, create_under_locks
from mockpay.payments.model import Change, Payment, TriggeredBy
from mockpay.payments.recording import audit_facts
from mockpay.payments.requests import ChangePayment, CreatePayment, ListPayments
from mockpay.payments.transition import NO_PAYMENT, Transition, move_together, move_under_locks
from mockpay.payments.velocity import Memory
from mockpay.payments.views import View
from mockpay.postgres.group_commit import GroupCommit, Write, end_of_patience, patience_until
from mockpay.postgres.pool import Connection
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
    asked = Creation(tenant.id, request, keyed, problem)
    together, under_locks = context.group_commits.of(create_together, lambda: _creations(context))
    deadline = end_of_patience()
    return await together.submit(asked, deadline) or await under_locks.submit(asked, deadline)


async def change(
    context: Context,
    tenant: Tenant,
    payment_id: UUID,
    what: Change,
    triggered_by: TriggeredBy,
    keyed: KeyedRequest | None,
    view: View,
) -> Answer:
    """Moves a payment to its next state. Raises NotFound, InvalidTransition, InvalidRequest, IdempotencyKeyReused."""
    asked = Transition(
        tenant_id=tenant.id, payment_id=payment_id, change=what, triggered_by=triggered_by, keyed=keyed, view=view
    )
    together = context.group_commits.of(move_together, lambda: _transitions(context))
    deadline = end_of_patience()
    answer = await together.submit(asked, deadline)
    if answer is None:
        async with patience_until(deadline):
            answer = await move_under_locks(context, asked)
    return answer


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


Creations = tuple[GroupCommit[Creation, Answer | None], GroupCommit[Creation, Answer]]
"""For all, and for those that another process was faster with."""


def _creations(context: Context) -> Creations:
    memory = Memory()
    return (
        _group_commit(context, functools.partial(create_together, context, memory)),
        _group_commit(context, functools.partial(create_under_locks, context, memory)),
    )


def _transitions(context: Context) -> GroupCommit[Transition, Answer | None]:
    return _group_commit(context, functools.partial(move_together, context))


def _group_commit(context: Context, write: Write[Work, Outcome]) -> GroupCommit[Work, Outcome]:
    # With several processes each has a part of the requests, and its batches would stay small.
    linger_seconds = LINGER_SECONDS if context.settings.workers > 1 else 0.0
    return GroupCommit(write, batch_max=BATCH_MAX, linger_seconds=linger_seconds)


async def _get(connection: Connection, tenant: Tenant, payment_id: UUID) -> Payment:
    payment = await store.by_id(connection, tenant.id, payment_id)
    if payment is None:
        raise NotFound(NO_PAYMENT)
    return payment
