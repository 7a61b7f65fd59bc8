"""Payments are created together: those that are asked for while a commit is under way are one transaction of the next.

Each keeps its own outcome. What refuses one, such as a key that was used for another request, refuses no other.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from mockpay import exact_json
from mockpay.audit.chain import EMPTY, link
from mockpay.context import Context
from mockpay.errors import ApiError, IdempotencyKeyReused
from mockpay.idempotency.model import Answer, KeyedRequest
from mockpay.payments import creation_store as store
from mockpay.payments.creation_store import Facts, Key, NewPayment
from mockpay.payments.fraud import RuleType, Verdict, assess
from mockpay.payments.model import Payment, Status, TriggeredBy
from mockpay.payments.outcomes import planned
from mockpay.payments.recording import audit_content, queue_webhook
from mockpay.payments.requests import CreatePayment
from mockpay.payments.views import payment_view
from mockpay.postgres.pool import Connection
from mockpay.tenants.model import Tenant

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


async def create_together(context: Context, asked: Sequence[Creation]) -> list[Answer | ApiError]:
    """In one transaction: for each, in their order, its answer or why it is refused."""
    is_news = False
    async with context.database.transaction() as connection:
        facts, now = await _learn(context, connection, asked)
        new = await _decide(context, connection, asked, facts, now)
        written = await store.write(connection, list(new.values()), now) if new else set()
        if len(written) < len(new):  # another process was faster with a key
            lost = [key for key in new if key not in written]
            facts.stored.update((await store.facts(connection, [], lost, now)).stored)
        tenants = {creation.tenant.id: creation.tenant for creation in asked}
        for key, each in new.items():
            if each.payment.status is Status.FLAGGED and key in written:
                is_news |= await queue_webhook(context, connection, tenants[key[0]], each.payment)
    if is_news:
        context.wake_worker()
    return _answers(asked, facts, new)


async def _learn(context: Context, connection: Connection, asked: Sequence[Creation]) -> tuple[Facts, datetime]:
    """The facts, and the moment that they are of: that at which the payments are made."""
    tenant_ids = sorted({creation.tenant.id for creation in asked})
    keys = sorted({creation.key for creation in asked})
    locked = await store.lock_those_that_are_counted(connection, tenant_ids)
    while True:
        now = context.clock.now()
        facts = await store.facts(connection, tenant_ids, keys, now)
        counted = {tenant_id for tenant_id, recent in facts.recent.items() if recent}
        if counted <= locked:
            return facts, now
        # A rule that counts was made just now. What it counted without the locks may be wrong.
        locked |= await store.lock_those_that_are_counted(connection, tenant_ids)


async def _decide(
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
        new[key] = _new_payment(context, creation, _verdict(creation, facts), now)
    if any(payment.outcome for payment in new.values()):
        new = _with_due_times(new, await store.database_now(connection))
    return {key: _complete(context, new[key], firsts[key].keyed) for key in sorted(new)}


def _verdict(creation: Creation, facts: Facts) -> Verdict | None:
    """By the rules; and the next one of the batch is decided with this one counted."""
    money, tenant_id = creation.request.money, creation.tenant.id
    rules = [rule for rule in facts.rules[tenant_id] if rule.currency is None or rule.currency == money.currency]
    recent = facts.recent[tenant_id]
    verdict = assess(rules, money, recent)
    for rule in rules:
        if rule.rule_type is RuleType.VELOCITY:
            recent[rule.id] += 1
    return verdict


def _new_payment(context: Context, creation: Creation, verdict: Verdict | None, now: datetime) -> Payment:
    request = creation.request
    return Payment(
        tenant_id=creation.tenant.id,
        id=context.new_id(),
        money=request.money,
        status=Status.FLAGGED if verdict else Status.PENDING,
        webhook_url=request.webhook_url,
        description=request.description,
        metadata=request.metadata,
        idempotency_key=creation.keyed.key,
        payment_method=None if request.payment_method is msgspec.UNSET else request.payment_method,
        outcome=None if verdict else planned(request, creation.keyed.key, context.new_seed()),
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


def _complete(context: Context, payment: Payment, keyed: KeyedRequest) -> NewPayment:
    triggered_by = TriggeredBy.FRAUD_ENGINE if payment.status is Status.FLAGGED else TriggeredBy.CREATE_API
    return NewPayment(
        payment=payment,
        entry=link(audit_content(context.new_id(), None, payment, triggered_by), EMPTY),
        keyed=keyed,
        answer_body=exact_json.encode(payment_view(payment)),
    )


def _answers(asked: Sequence[Creation], facts: Facts, new: dict[Key, NewPayment]) -> list[Answer | ApiError]:
    """What is stored goes before all: it may have been stored by another process just now."""
    answers: list[Answer | ApiError] = []
    told: set[Key] = set()
    for creation in asked:
        key = creation.key
        stored, mine = facts.stored.get(key), new.get(key)
        if stored:
            answers.append(_repeated(creation, stored.fingerprint, Answer(stored.status, stored.body, replayed=True)))
        elif creation.problem or mine is None:
            assert creation.problem, "what is neither stored nor refused was written"
            answers.append(creation.problem)
        elif key in told:
            answers.append(
                _repeated(creation, mine.keyed.fingerprint, Answer(CREATED, mine.answer_body, replayed=True))
            )
        else:
            told.add(key)
            answers.append(Answer(CREATED, mine.answer_body))
    return answers


def _repeated(creation: Creation, fingerprint: bytes, answer: Answer) -> Answer | ApiError:
    return answer if creation.keyed.fingerprint == fingerprint else IdempotencyKeyReused()
