"""Which requests, or which webhooks, a rule makes fail. Pure.

A choice that is left to chance is made from the rule's seed and the number of the request among those that match, so
the same seed and the same requests fail in the same way.
"""

import re
from collections.abc import Iterable
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
    if rule.probability is not None:
        return chance(rule.seed, str(number)).random() < rule.probability
    return True


def ask(rules: Iterable[Rule]) -> tuple[Rule | None, list[Rule]]:
    """The first rule that fires, and every rule as it is after having been asked. Those behind it are not asked.

    `rules` are those that concern the request, or the webhook, oldest first.
    """
    asked = []
    for rule in rules:
        fired = fires(rule)
        asked.append(msgspec.structs.replace(rule, matched=rule.matched + 1, fired=rule.fired + fired))
        if fired:
            return asked[-1], asked
    return None, asked
