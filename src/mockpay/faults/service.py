"""A tenant's fault rules: make them, end them, and ask them about a request or a webhook."""

import asyncio
import functools
from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

import msgspec

from mockpay.chance import SEED_MAX, chance
from mockpay.context import Context
from mockpay.errors import Fault, FaultsOff, InvalidRequest, NotFound
from mockpay.events import Event
from mockpay.faults import store
from mockpay.faults.requests import CreateFault
from mockpay.faults.rules import Asking, Operation, Rule, Target
from mockpay.postgres.group_commit import GroupCommit
from mockpay.postgres.pool import Connection
from mockpay.tenants import store as tenants
from mockpay.tenants.model import Tenant
from mockpay.webhooks.tampering import WebhookFault, parse

RULES_MAX: Final = 100
BATCH_MAX: Final = 64
ASKED_AT_ONCE: Final = 200

Question = tuple[UUID, Operation]
"""Whether a request of this tenant, for this operation, shall fail."""


def refuse_when_off(context: Context) -> None:
    """Raises FaultsOff: a fault that is asked for and does nothing would let a test pass for no reason."""
    if not context.settings.faults_are_on:
        raise FaultsOff


async def create(context: Context, tenant: Tenant, request: CreateFault) -> Rule:
    """Raises InvalidRequest if the tenant has too many, and FaultsOff."""
    refuse_when_off(context)
    rule = _new_rule(context, request)
    async with context.database.transaction() as connection:
        await tenants.lock(connection, tenant.id)
        if len(await store.of_tenant(connection, tenant.id)) >= RULES_MAX:
            raise InvalidRequest([Fault("fault", f"is one too many: a tenant may have {RULES_MAX} rules; delete some")])
        await store.insert(connection, tenant.id, [rule])
    return rule


async def replace_all(context: Context, tenant: Tenant, requests: list[CreateFault]) -> list[Rule]:
    """Makes these rules in place of all that there were. Raises FaultsOff."""
    refuse_when_off(context)
    rules = [_new_rule(context, request) for request in requests]
    async with context.database.transaction() as connection:
        await tenants.lock(connection, tenant.id)
        await store.delete_all(connection, tenant.id)
        await store.insert(connection, tenant.id, rules)
    return rules


async def of_tenant(context: Context, tenant: Tenant) -> list[Rule]:
    """In the order in which they are asked."""
    async with context.database.connection() as connection:
        return await store.of_tenant(connection, tenant.id)


async def delete(context: Context, tenant: Tenant, rule_id: UUID) -> None:
    """Raises NotFound."""
    async with context.database.transaction() as connection:
        await tenants.lock(connection, tenant.id)
        if not await store.delete(connection, tenant.id, rule_id):
            raise NotFound("There is no such fault rule.")


async def delete_all(context: Context, tenant: Tenant) -> None:
    async with context.database.transaction() as connection:
        await tenants.lock(connection, tenant.id)
        await store.delete_all(connection, tenant.id)


async def fired_by(context: Context, tenant: Tenant, operation: Operation) -> Rule | None:
    """Returns the rule that makes this request fail, if one does, and counts that it was asked.

    Where faults are off no rule is asked, and none is counted.
    """
    if not (tenant.has_faults and context.settings.faults_are_on):
        return None
    question = tenant.id, operation
    verdict = await context.group_commits.of(ask_together, lambda: _questions(context)).submit(question)
    return (verdict or await _ask_alone(context, question)).fired


class Verdict(msgspec.Struct, frozen=True):
    """Says what the rules make of a request. `fired` is None where it shall not fail."""

    fired: Rule | None


async def ask_together(context: Context, questions: Sequence[Question]) -> list[Verdict | None]:
    """Requests that come while others are asked about are asked about together.

    Returns None where another process asked the same rules meanwhile: then nothing was counted.
    """
    async with context.database.connection() as connection:  # each statement is a transaction by itself
        asking = await _asking(connection, questions)
        fired = []
        for question in questions:
            fired.append(asking.about(*question))
            await give_way(asking)
        counted = asking.counted
        held = await store.count(connection, counted) if counted else set()
    undone = {each.tenant_id for each in counted} - held
    return [
        None if tenant_id in undone else Verdict(rule) for (tenant_id, _), rule in zip(questions, fired, strict=True)
    ]


async def give_way(asking: Asking) -> None:
    """Lets others have their turn, where many rules were asked: a draw takes ten microseconds."""
    if asking.asked >= ASKED_AT_ONCE:
        asking.asked = 0
        await asyncio.sleep(0)


async def _ask_alone(context: Context, question: Question) -> Verdict:
    async with context.database.transaction() as connection:
        await store.lock(connection, [question[0]])
        asking = await _asking(connection, [question])
        fired = asking.about(*question)
        counted = asking.counted
        held = await store.count(connection, counted) if counted else set()
    assert {each.tenant_id for each in counted} == held, "under locks nobody else asks the rules, or ends them"
    return Verdict(fired)


def _questions(context: Context) -> GroupCommit[Question, Verdict | None]:
    return GroupCommit(functools.partial(ask_together, context), batch_max=BATCH_MAX)


async def _asking(connection: Connection, questions: Sequence[Question]) -> Asking:
    tenants_asking, operations = {tenant_id for tenant_id, _ in questions}, {operation for _, operation in questions}
    return Asking(await store.about(connection, tenants_asking, Target.REQUEST, operations))


class Suffers(msgspec.Struct, frozen=True):
    """What shall happen to a webhook, the rule that says so, and the seed of what is left to chance later."""

    fault: WebhookFault
    rule_id: UUID
    seed: int


async def asking_about_webhooks(connection: Connection, webhooks: Iterable[tuple[UUID, Event]]) -> Asking:
    """Reads the rules that webhooks of these tenants and events have to ask. The caller writes what they count."""
    pairs = list(webhooks)
    if not pairs:
        return Asking({})
    rules = await store.about(connection, {pair[0] for pair in pairs}, Target.WEBHOOK, {pair[1] for pair in pairs})
    return Asking(rules)


def fault_of_webhook(asking: Asking, tenant_id: UUID, event: Event) -> Suffers | None:
    """Returns what the webhook of an event suffers, if a rule fires."""
    fired = asking.about(tenant_id, event)
    if fired is None:
        return None
    seed = chance(fired.seed, f"{fired.matched} seed").randint(0, SEED_MAX)
    return Suffers(parse(fired.fault).drawn(fired.seed, wait_of(fired)), fired.id, seed)


def wait_of(rule: Rule) -> str:
    """What a time that is left to chance is drawn for: this rule's fault of this number."""
    return f"{rule.matched} seconds"


def _new_rule(context: Context, request: CreateFault) -> Rule:
    fields = msgspec.structs.asdict(request)
    if request.seed is None:
        fields["seed"] = context.new_seed()
    return Rule(
        id=context.new_id(),
        target=request.fault.target,
        matched=0,
        fired=0,
        created_at=context.clock.now(),
        **fields,
    )
