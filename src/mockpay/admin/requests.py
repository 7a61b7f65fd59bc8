"""What the administrator may ask for: the bodies, and their rules. Pure."""

from decimal import Decimal
from typing import Annotated, Literal

import msgspec

from mockpay.errors import InvalidRequest
from mockpay.payments.fraud import RuleType, StoredRule, Threshold, faults_of
from mockpay.settings import RateLimitTier
from mockpay.types import Currency, Id, given

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
WindowSeconds = Annotated[int, msgspec.Meta(ge=1, le=31_536_000)]


class ChangeUser(msgspec.Struct, frozen=True):
    """The body of PATCH /api/admin/users/{id}."""

    rate_limit_tier: RateLimitTier


class CreateRule(msgspec.Struct, frozen=True):
    """The body of POST /api/admin/fraud-rules. Without a currency or a tenant it holds for all of them."""

    name: Name
    rule_type: RuleType
    threshold: Threshold
    window_secs: WindowSeconds | None = None
    currency: Currency | None = None
    tenant_id: Id | None = None
    action: Literal["flag"] = "flag"
    is_active: bool = True

    def __post_init__(self) -> None:
        _check(self.rule_type, self.threshold, self.window_secs)


class ChangeRule(msgspec.Struct, frozen=True):
    """The body of PATCH /api/admin/fraud-rules/{id}. What is left out stays."""

    is_active: bool | msgspec.UnsetType = msgspec.UNSET
    threshold: Threshold | msgspec.UnsetType = msgspec.UNSET
    window_secs: WindowSeconds | msgspec.UnsetType = msgspec.UNSET
    name: Name | msgspec.UnsetType = msgspec.UNSET

    def applied_to(self, rule: StoredRule) -> StoredRule:
        """An empty change toggles `is_active`. Raises InvalidRequest if the whole does not fit together."""
        changes = given(self) or {"is_active": not rule.is_active}
        changed: StoredRule = msgspec.structs.replace(rule, **changes)
        _check(changed.rule_type, changed.threshold, changed.window_secs)
        return changed


def _check(rule_type: RuleType, threshold: Decimal, window_secs: int | None) -> None:
    faults = faults_of(rule_type, threshold, window_secs)
    if faults:
        raise InvalidRequest(faults)
