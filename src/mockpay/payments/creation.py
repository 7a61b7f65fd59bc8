"""Payments are created together: those that are asked for while others are being written are written next, at once.

Each keeps its own outcome. What refuses one, such as a key that was used for another request, refuses no other.

It takes one statement to learn what is decided by, and one to write; where webhooks may suffer faults by a rule, one
more reads the rules. The writing one passes over what the facts no longer hold for, because another process was faster.
That is then done in a transaction, under locks.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from mockpay import exact_json
from mockpay.audit.chain import EMPTY, link
from mockpay.context import Context
from mockpay.errors import ApiError
from mockpay.faults import store as fault_rules
from mockpay.faults.rules import Counted
from mockpay.idempotency.model import FINGERPRINT_VERSION, Answer, KeyedRequest, Stored
from mockpay.payments import creation_store as store
from mockpay.payments.creation_store import Facts, Key, NewPayment, Of
from mockpay.payments.fraud import Assessment, Rule, RuleType, assess, velocity_rules
from mockpay.payments.model import Payment, Status, TriggeredBy
from mockpay.payments.outcomes import planned
from mockpay.payments.recording import Attempt, asked_about, audit_content, new_delivery
from mockpay.payments.requests import CreatePayment
from mockpay.payments.velocity import Memory
from mockpay.payments.views import payment_view
from mockpay.postgres.pool import Connection
from mockpay.types import Money

CREATED = 201
NEVER_TOO_MANY = 2**62
"""More creations than a tenant will ever have."""


class Creation(msgspec.Struct, frozen=True):
    """What one client asks for. A `problem` refuses it, but a repeat of what was done gets its answer all the same."""

    tenant_id: UUID
    request: CreatePayment
    keyed: KeyedRequest
    problem: ApiError | None

    @property
    def key(self) -> Key:
        return self.tenant_id, self.keyed.key


class Decision(msgspec.Struct, frozen=True):
    """Holds what is to be written, and for how many creations meanwhile that is right.

    `firsts` are the requests that it is made for: of several with one key the first.
    """

    new: dict[Key, NewPayment]
    firsts: dict[Key, Creation]
    creations_max: dict[UUID, int]
    counted: list[Counted]


async def create_together(
    context: Context, memory: Memory, asked: Sequence[Creation]
) -> list[Answer | ApiError | None]:
    """Returns for each, in their order, its answer or why it is refused. All that is answered is durable.

    Returns None where another process was faster; `create_under_locks` answers those.
    """
    async with context.database.connection() as connection:  # each statement is a transaction by itself
        attempt = await _attempt(context, connection, memory, asked)
    if attempt.is_news:
        context.wake_worker()
    return attempt.answers


async def create_under_locks(context: Context, memory: Memory, asked: Sequence[Creation]) -> list[Answer | ApiError]:
    """Returns for each, in their order, its answer or why it is refused."""
    tenant_ids = sorted({creation.tenant_id for creation in asked})
    async with context.database.transaction() as connection:
        await store.lock(connection, tenant_ids)
        await fault_rules.lock(connection, tenant_ids)
        answers = (await _attempt(context, connection, memory, asked)).answers
        rest = [creation for creation, answer in zip(asked, answers, strict=True) if answer is None]
        if rest:  # whose keys other requests took meanwhile: by now what they stand for is seen
            # What is counted now may be undone with this transaction, and is not remembered.
            again = iter((await _attempt(context, connection, Memory(), rest)).answers)
            answers = [next(again) if answer is None else answer for answer in answers]
    context.wake_worker()
    found = [answer for answer in answers if answer is not None]
    assert len(found) == len(asked), "under locks nothing is passed over but what is stored"
    return found


async def _attempt(context: Context, connection: Connection, memory: Memory, asked: Sequence[Creation]) -> Attempt:
    now = context.clock.now()
    batches = Counter(creation.tenant_id for creation in asked)
    keys = sorted({creation.key for creation in asked})
    facts = await store.facts(connection, {id_: batches[id_] for id_ in sorted(batches)}, keys, now, memory)
    decision = await decide(context, connection, asked, facts, now)
    written: set[Key] = set()
    if decision.new:
        written = await store.write(
            connection, list(decision.new.values()), decision.creations_max, decision.counted, now
        )
    return Attempt(
        [_answer(creation, facts, decision, written) for creation in asked],
        any(decision.new[key].delivery for key in written),
    )


async def decide(
    context: Context, connection: Connection, asked: Sequence[Creation], facts: Facts, now: datetime
) -> Decision:
    """Decides what is to be written, in the order of the keys."""
    new: dict[Key, Payment] = {}
    firsts: dict[Key, Creation] = {}
    creations_max: dict[UUID, int] = {}
    for creation in asked:
        key, tenant_id = creation.key, creation.tenant_id
        if creation.problem or key in facts.stored or key in firsts:
            continue
        firsts[key] = creation
        money = creation.request.money
        assessment = _assess(facts.of[tenant_id], money, lifted=context.settings.unlimited)
        new[key] = _new_payment(context, creation, money, assessment, now)
        highest = NEVER_TOO_MANY if assessment.room is None else facts.of[tenant_id].creations + assessment.room
        creations_max[tenant_id] = min(highest, creations_max.get(tenant_id, highest))
    if any(payment.outcome for payment in new.values()):
        new = _with_due_times(new, await store.database_now(connection))
    keys = sorted(new)
    complete = [_complete(context, firsts[key], new[key], facts.of[key[0]]) for key in keys]
    deliveries, counted = await asked_about(
        context,
        connection,
        [each.delivery for each in complete],
        {id_ for id_, of in facts.of.items() if of.has_faults},
    )
    whole = [
        each if each.delivery is of else msgspec.structs.replace(each, delivery=of)
        for each, of in zip(complete, deliveries, strict=True)
    ]
    return Decision(
        new=dict(zip(keys, whole, strict=True)),
        firsts=firsts,
        creations_max={tenant_id: creations_max[tenant_id] for tenant_id in sorted(creations_max)},
        counted=counted,
    )


def _assess(of: Of, money: Money, *, lifted: bool) -> Assessment:
    """By the rules; and the next one of the batch is decided with this one counted."""
    rules = [rule for rule in of.rules if _holds(rule, money, lifted=lifted)]
    assessment = assess(rules, money, of.recent)
    for rule in velocity_rules(rules):
        of.recent[rule.id] += 1
    return assessment


def _holds(rule: Rule, money: Money, *, lifted: bool) -> bool:
    if lifted and rule.rule_type is RuleType.VELOCITY:
        return False
    return rule.currency is None or rule.currency == money.currency


def _new_payment(context: Context, creation: Creation, money: Money, assessment: Assessment, now: datetime) -> Payment:
    request, verdict = creation.request, assessment.verdict
    return Payment(
        tenant_id=creation.tenant_id,
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


def _complete(context: Context, creation: Creation, payment: Payment, of: Of) -> NewPayment:
    triggered_by = TriggeredBy.FRAUD_ENGINE if payment.status is Status.FLAGGED else TriggeredBy.CREATE_API
    return NewPayment(
        payment=payment,
        entry=link(audit_content(context.new_id(), None, payment, triggered_by), EMPTY),
        keyed=creation.keyed,
        answer_body=exact_json.encode(payment_view(payment)),
        delivery=new_delivery(context, payment, of.webhook_url),
    )


def _answer(creation: Creation, facts: Facts, decision: Decision, written: set[Key]) -> Answer | ApiError | None:
    """What is stored goes before all. None where the attempt decided nothing."""
    key = creation.key
    if key in facts.stored:
        return facts.stored[key].answer_to(creation.keyed)
    if creation.problem:
        return creation.problem
    if key not in written:
        return None
    mine = decision.new[key]
    if decision.firsts[key] is creation:
        return Answer(CREATED, mine.answer_body)
    return Stored(mine.keyed.fingerprint, FINGERPRINT_VERSION, CREATED, mine.answer_body).answer_to(creation.keyed)
