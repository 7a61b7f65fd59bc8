"""What clients may ask for: the bodies, and their rules. Pure."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar

import msgspec

from mockpay.cursor import Cursor
from mockpay.errors import Fault, InvalidRequest
from mockpay.payments.declines import FailureCode
from mockpay.payments.magic_values import PaymentMethod
from mockpay.payments.model import SimulatedStatus, Status
from mockpay.payments.outcomes import Outcome
from mockpay.types import Amount, Currency, Money
from mockpay.webhooks.address import WebhookUrl

METADATA_KEYS_MAX = 50
METADATA_KEY_LENGTH_MAX = 100
METADATA_DEPTH_MAX = 10
METADATA_DECIMALS_MAX = 400
METADATA_SMALLEST, METADATA_LARGEST = Decimal.from_float(1e-300), Decimal.from_float(1e300)
"""As decimals: to compare one with a float takes ten times as long, and a body may hold a hundred thousand."""

Text = Annotated[str, msgspec.Meta(max_length=1000)]


class Metadata(dict[str, Any]):
    """The client's own JSON object, kept and returned."""

    json_schema: ClassVar[dict[str, Any]] = {"type": "object", "max_properties": METADATA_KEYS_MAX}

    @classmethod
    def parse(cls, raw: object) -> "Metadata":
        if not isinstance(raw, dict):
            raise ValueError("must be a JSON object")
        if len(raw) > METADATA_KEYS_MAX:
            raise ValueError(f"must have at most {METADATA_KEYS_MAX} keys")
        if any(len(key) > METADATA_KEY_LENGTH_MAX for key in raw):
            raise ValueError(f"must have keys of at most {METADATA_KEY_LENGTH_MAX} characters")
        _check_value(raw, METADATA_DEPTH_MAX)
        return cls(raw)


class CreatePayment(msgspec.Struct, frozen=True):
    """The body of POST /api/payments."""

    amount: Amount
    currency: Currency
    webhook_url: WebhookUrl | None = None
    description: Text | None = None
    metadata: Metadata | None = None
    payment_method: PaymentMethod | msgspec.UnsetType = msgspec.UNSET
    outcome: Outcome | msgspec.UnsetType = msgspec.UNSET

    FIRST_FIELDS: ClassVar = frozenset(
        {"amount", "currency", "webhook_url", "description", "metadata", "payment_method", "outcome"}
    )
    """These are what a fingerprint of the first version is made of. A field that is added later is none of these."""

    def __post_init__(self) -> None:
        try:
            Money.of(self.amount, self.currency)
        except ValueError as error:
            raise InvalidRequest([Fault("amount", str(error))]) from error

    @property
    def money(self) -> Money:
        return Money.of(self.amount, self.currency)


class SimulatePayment(msgspec.Struct, frozen=True):
    """The body of POST /api/payments/{id}/simulate. A failure without a code is `card_declined`."""

    status: SimulatedStatus
    failure_code: FailureCode | msgspec.UnsetType = msgspec.UNSET

    FIRST_FIELDS: ClassVar = frozenset({"status", "failure_code"})

    def __post_init__(self) -> None:
        if self.failure_code is not msgspec.UNSET and self.status is not SimulatedStatus.FAILED:
            raise InvalidRequest([Fault("failure_code", "is for status failed only")])


class RefundPayment(msgspec.Struct, frozen=True):
    """The body of POST /api/payments/{id}/refund."""

    refund_amount: Amount
    reason: Text | None = None

    FIRST_FIELDS: ClassVar = frozenset({"refund_amount", "reason"})


class ChangePayment(msgspec.Struct, frozen=True):
    """The body of PATCH /api/payments/{id}. What is left out stays, `null` takes it away."""

    webhook_url: WebhookUrl | msgspec.UnsetType | None = msgspec.UNSET
    description: Text | msgspec.UnsetType | None = msgspec.UNSET
    metadata: Metadata | msgspec.UnsetType | None = msgspec.UNSET


class ListPayments(msgspec.Struct, frozen=True):
    """The query of GET /api/payments. `created_from` is inclusive, `created_to` exclusive."""

    limit: int = 10
    cursor: Cursor | None = None
    status: Status | None = None
    currency: Currency | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None


def _check_value(value: object, depth: int) -> None:
    """PostgreSQL's JSON numbers end where its numeric does; far below that, a double's range is all anyone reads."""
    if depth == 0:
        raise ValueError(f"must not be nested deeper than {METADATA_DEPTH_MAX} levels")
    match value:
        case dict():
            for item in value.values():
                _check_value(item, depth - 1)
        case list():
            for item in value:
                _check_value(item, depth - 1)
        case bool() | str() | None:
            return
        case _:
            _check_number(value)


def _check_number(value: Any) -> None:
    if (
        isinstance(value, Decimal)
        and not -METADATA_DECIMALS_MAX < int(value.as_tuple().exponent) < METADATA_DECIMALS_MAX
    ):
        raise ValueError(f"must not hold numbers of more than {METADATA_DECIMALS_MAX} digits")
    if value and not METADATA_SMALLEST < abs(value) < METADATA_LARGEST:
        raise ValueError("must not hold numbers outside the range of a double")
