"""What clients may ask for: the bodies, and their rules. Pure."""

import base64
import binascii
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, ClassVar
from uuid import UUID

import msgspec

from mockpay.errors import Fault, InvalidRequest
from mockpay.payments.model import Status
from mockpay.types import Amount, Currency, Money, rfc3339
from mockpay.webhooks.address import WebhookUrl

METADATA_KEYS_MAX = 50
METADATA_KEY_LENGTH_MAX = 100
METADATA_DEPTH_MAX = 10
METADATA_DECIMALS_MAX = 400

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

    def __post_init__(self) -> None:
        try:
            Money.of(self.amount, self.currency)
        except ValueError as error:
            raise InvalidRequest([Fault("amount", str(error))]) from error

    @property
    def money(self) -> Money:
        return Money.of(self.amount, self.currency)


class SimulatedStatus(StrEnum):
    SUCCESS = "success"
    FAILED = "failed"


class SimulatePayment(msgspec.Struct, frozen=True):
    """The body of POST /api/payments/{id}/simulate."""

    status: SimulatedStatus


class RefundPayment(msgspec.Struct, frozen=True):
    """The body of POST /api/payments/{id}/refund."""

    refund_amount: Amount
    reason: Text | None = None


class Cursor(msgspec.Struct, frozen=True):
    """The place of a payment in the list, from which the next page goes on to older ones."""

    created_at: datetime
    id: UUID

    def encode(self) -> str:
        return base64.urlsafe_b64encode(f"{rfc3339(self.created_at)}|{self.id}".encode()).decode()

    @classmethod
    def decode(cls, text: str) -> "Cursor":
        """Raises ValueError."""
        try:
            created_at, _, id_ = base64.b64decode(text, altchars="-_", validate=True).decode("ascii").partition("|")
            return cls(parse_time(created_at), UUID(id_))
        except (binascii.Error, ValueError) as error:
            raise ValueError("must be the next_cursor of an earlier page") from error


class ListPayments(msgspec.Struct, frozen=True):
    """The query of GET /api/payments. `created_from` is inclusive, `created_to` exclusive."""

    limit: int = 10
    cursor: Cursor | None = None
    status: Status | None = None
    currency: Currency | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None


def parse_time(text: str) -> datetime:
    """An RFC 3339 time with its offset. Raises ValueError."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None or "T" not in text.upper():
            raise ValueError(text)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError("must be an RFC 3339 time such as 2026-01-31T12:00:00Z") from error


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
    if not -1e300 < value < 1e300 or (value != 0 and abs(value) < 1e-300):  # noqa: PLR2004
        raise ValueError("must not hold numbers outside the range of a double")
