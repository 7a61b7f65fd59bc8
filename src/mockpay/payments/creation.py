"""Payments are created together: those that are asked for while others are being written are written next, at once.

Each keeps its own outcome. What refuses one, such as a key that was used for another request, refuses no other.

It takes one statement to learn what is decided by, and one to write. The second one passes over what the first no
longer holds for, because another process was faster. That, and payments whose webhooks may suffer faults by a rule, is
then done in a transaction, under locks.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from mockpay import exact_json
from mockpay.audit.chain import EMPTY, link
from mockpay.context import Context
from mockpay.errors import ApiError
from mockpay.idempotency.model import Answer, KeyedRequest, Stored
from mockpay.payments import creation_store as store
from mockpay.payments.creation_store import Facts, Key, NewPayment
from mockpay.payments.fraud import Verdict, assess, velocity_rules
from mockpay.payments.model import Payment, Status, TriggeredBy
from mockpay.payments.outcomes import planned
from mockpay.payments.recording import audit_content, new_delivery, queue_webhook
from mockpay.payments.requests import CreatePayment
from mockpay.payments.views import payment_view
from mockpay.postgres.pool import Connection
from mockpay.tenants.model import Tenant
from mockpay.types import Money

CREATED = 201


class Creation(msgspec.Struct, frozen=True):
    """What one client asks for. A `problem` refuses it, but a repeat of what was done gets its answer all the same."""

    tenant: Tenant
    request: CreatePayment
    keyed: KeyedRequest
    problem: ApiError | None

    @property
    def key(self) -> Key:
        return self.tenant.id, self.keyed.key


class _Attempt(msgspec.Struct, frozen=True):
    """What was known, and what could be written."""

    facts: Facts
    written: dict[Key, NewPayment]


async def create_together(context: Context, asked: Sequence[Creation]) -> list[Answer | ApiError]:
    """For each, in their order, its answer or why it is refused. All that is answered is durable."""
    without_faults = [creation for creation in asked if not creation.tenant.has_faults]
    attempt = _Attempt(Facts({}, {}, {}, {}), {})
    if without_faults:
        async with context.database.connection() as connection:  # each statement is a transaction by itself
            attempt = await _attempt(context, connection, without_faults)
    answers = _answers(asked, attempt)
    rest = [creation for creation, answer in zip(asked, answers, strict=True) if answer is None]
    under_locks = iter(await _create_under_locks(context, rest) if rest else ())
    if any(new.delivery for new in attempt.written.values()):
        context.wake_worker()
    return [next(under_locks) if answer is None else answer for answer in answers]


async def _create_under_locks(context: Context, asked: Sequence[Creation]) -> list[Answer | ApiError]:
    async with context.database.transaction() as connection:
        await store.lock(connection, sorted({creation.tenant.id for creation in asked}))
        attempt = await _attempt(context, connection, asked)
        lost = sorted({creation.key for creation in asked} - attempt.written.keys() - attempt.facts.stored.keys())
        if lost:  # a key that another request took meanwhile, or what is refused
            now = context.clock.now()
            attempt.facts.stored.update((await store.facts(connection, [], lost, now)).stored)
        tenants = {creation.tenant.id: creation.tenant for creation in asked}
        for key, new in attempt.written.items():
            if tenants[key[0]].has_faults:
                await queue_webhook(context, connection, tenants[key[0]], new.payment)
    context.wake_worker()
    answers = [answer for answer in _answers(asked, attempt) if answer is not None]
    assert len(answers) == len(asked), "under locks nothing is passed over but what is stored"
    return answers


async def _attempt(context: Context, connection: Connection, asked: Sequence[Creation]) -> _Attempt:
    now = context.clock.now()
    keys = sorted({creation.key for creation in asked})
    facts = await store.facts(connection, sorted({key[0] for key in keys}), keys, now)
    new = await decide(context, connection, asked, facts, now)
    if not new:
        return _Attempt(facts, {})
    written = await store.write(connection, list(new.values()), facts.counters, now)
    return _Attempt(facts, {key: each for key, each in new.items() if key in written})


async def decide(
    context: Context, connection: Connection, asked: Sequence[Creation], facts: Facts, now: datetime
) -> dict[Key, NewPayment]:
    """What is to be written, in the order of the keys. Of several with one key the first is it."""
    new: dict[Key, Payment] = {}
    firsts: dict[Key, Creation] = {}
    for creation in asked:
        key = creation.key
        if creation.problem or key in facts.stored or key in firsts:
            continue
        firsts[key] = creation
        money = creation.request.money
        new[key] = _new_payment(context, creation, money, _verdict(creation.tenant.id, money, facts), now)
    if any(payment.outcome for payment in new.values()):
        new = _with_due_times(new, await store.database_now(connection))
    return {key: _complete(context, firsts[key], new[key]) for key in sorted(new)}


def _verdict(tenant_id: UUID, money: Money, facts: Facts) -> Verdict | None:
    """By the rules; and the next one of the batch is decided with this one counted."""
    rules = [rule for rule in facts.rules[tenant_id] if rule.currency is None or rule.currency == money.currency]
    recent = facts.recent[tenant_id]
    verdict = assess(rules, money, recent)
    for rule in velocity_rules(rules):
        recent[rule.id] += 1
    return verdict


def _new_payment(context: Context, creation: Creation, money: Money, verdict: Verdict | None, now: datetime) -> Payment:
    request = creation.request
    return Payment(
        tenant_id=creation.tenant.id,
        id=context.new_id(),
        money=money,
        status=Status.FLAGGED if verdict else Status.PENDING,
        webhook_url=request.webhook_url,
        description=request.description,
        metadata=request.metadata,
        idempotency_key=creation.keyed.key,
        payment_method=None if request.payment_method is msgspec.UNSET else request.payment_method,
        outcome=None if verdict else planned(request, creation.keyed.key, context.new_seed),
        flag_reason=verdict.reason if verdict else None,
        flag_rule=verdict.rule if verdict else None,
        created_at=now,
        updated_at=now,
    )


def _with_due_times(payments: dict[Key, Payment], now: datetime) -> dict[Key, Payment]:
    """`now` is the database's, as it is by that clock that outcomes become due. One that stays as it is never is."""
    due = {}
    for key, payment in payments.items():
        outcome = payment.outcome
        if outcome and outcome.status is not Status.PENDING:
            outcome = msgspec.structs.replace(outcome, due_at=now + timedelta(seconds=outcome.after_seconds))
        due[key] = msgspec.structs.replace(payment, outcome=outcome)
    return due


def _complete(context: Context, creation: Creation, payment: Payment) -> NewPayment:
    triggered_by = TriggeredBy.FRAUD_ENGINE if payment.status is Status.FLAGGED else TriggeredBy.CREATE_API
    has_faults = creation.tenant.has_faults  # then its webhook is queued when the rules were asked
    return NewPayment(
        payment=payment,
        entry=link(audit_content(context.new_id(), None, payment, triggered_by), EMPTY),
        keyed=creation.keyed,
        answer_body=exact_json.encode(payment_view(payment)),
        delivery=None if has_faults else new_delivery(context, creation.tenant, payment),
    )


def _answers(asked: Sequence[Creation], attempt: _Attempt) -> list[Answer | ApiError | None]:
    """What is stored goes before all. None where the attempt decided nothing."""
    answers: list[Answer | ApiError | None] = []
    told: set[Key] = set()
    for creation in asked:
        key = creation.key
        stored, mine = attempt.facts.stored.get(key), attempt.written.get(key)
        if stored:
            answers.append(stored.answer_to(creation.keyed))
        elif creation.problem:
            answers.append(creation.problem)
        elif mine is None:
            answers.append(None)
        elif key in told:
            answers.append(Stored(mine.keyed.fingerprint, CREATED, mine.answer_body).answer_to(creation.keyed))
        else:
            told.add(key)
            answers.append(Answer(CREATED, mine.answer_body))
    return answers
