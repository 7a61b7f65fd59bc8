"""Which requests, or which webhooks, a rule makes fail. Pure.

A choice that is left to chance is made from the rule's seed and the number of the request among those that match, so
the same seed and the same requests fail in the same way.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from mockpay.chance import chance
from mockpay.events import Event


class Operation(StrEnum):
    CREATE = "create"
    LIST = "list"
    GET = "get"
    CHANGE = "change"
    SIMULATE = "simulate"
    REFUND = "refund"
    AUDIT = "audit"
    DELIVERIES = "deliveries"


_ROUTES: Final = tuple(
    (method, re.compile(path), operation)
    for method, path, operation in (
        ("POST", "/api/payments", Operation.CREATE),
        ("GET", "/api/payments", Operation.LIST),
        ("GET", "/api/payments/[^/]+", Operation.GET),
        ("PATCH", "/api/payments/[^/]+", Operation.CHANGE),
        ("POST", "/api/payments/[^/]+/simulate", Operation.SIMULATE),
        ("POST", "/api/payments/[^/]+/refund", Operation.REFUND),
        ("GET", "/api/payments/[^/]+/audit", Operation.AUDIT),
        ("GET", "/api/payments/[^/]+/deliveries", Operation.DELIVERIES),
    )
)


_CERTAIN: Final = (0, 1)
"""Probabilities that leave nothing to draw."""


class Target(StrEnum):
    """What a rule is about."""

    REQUEST = "request"
    WEBHOOK = "webhook"


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """`fault` is spelled as in the header. `matched` counts what it was asked about, `fired` its faults.

    A rule of requests may be of one operation only, one of webhooks of one event.
    """

    id: UUID
    target: Target
    operation: Operation | None
    event: Event | None
    fault: str
    times: int | None
    every: int | None
    probability: Decimal | None
    seed: int
    matched: int
    fired: int
    created_at: datetime


def operation_of(method: str, path: str) -> Operation | None:
    """Of a normalized path. None of those that no rule may make fail, such as the rules themselves."""
    return next((operation for verb, route, operation in _ROUTES if verb == method and route.fullmatch(path)), None)


def fires(rule: Rule) -> bool:
    """Whether the rule makes the next one fail that it is asked about."""
    number = rule.matched + 1
    if rule.times is not None:
        return number <= rule.times
    if rule.every is not None:
        return number % rule.every == 0
    if rule.probability is not None and rule.probability in _CERTAIN:
        return bool(rule.probability)
    if rule.probability is not None:
        return chance(rule.seed, str(number)).random() < rule.probability
    return True


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """Says what a rule is to count from now on, if it has still counted `matched_before`."""

    tenant_id: UUID
    rule_id: UUID
    matched_before: int
    matched: int
    fired: int


class Asking:
    """Asks the rules of tenants about one request, or one webhook, after the other.

    `rules` are those that may concern them, in the order in which they are asked: oldest first. The first that fires
    decides, and those behind it are not asked.
    """

    def __init__(self, rules: Mapping[UUID, Sequence[Rule]]) -> None:
        self._rules = {tenant_id: list(of_tenant) for tenant_id, of_tenant in rules.items()}
        self._matched_before = {rule.id: rule.matched for of_tenant in rules.values() for rule in of_tenant}
        self.asked = 0
        """How many rules were asked so far."""

    def about(self, tenant_id: UUID, thing: "Operation | Event") -> Rule | None:
        """Returns the rule that fires, as it is after having been asked; None if none does."""
        rules = self._rules.get(tenant_id, [])
        for place, rule in enumerate(rules):
            if (rule.operation or rule.event or thing) != thing:
                continue
            fired = fires(rule)
            self.asked += 1
            rules[place] = msgspec.structs.replace(rule, matched=rule.matched + 1, fired=rule.fired + fired)
            if fired:
                return rules[place]
        return None

    @property
    def counted(self) -> list[Counted]:
        """Returns what the rules that were asked count now."""
        return [
            Counted(
                tenant_id=tenant_id,
                rule_id=rule.id,
                matched_before=self._matched_before[rule.id],
                matched=rule.matched,
                fired=rule.fired,
            )
            for tenant_id, rules in self._rules.items()
            for rule in rules
            if rule.matched != self._matched_before[rule.id]
        ]
