"""The values that every part shares: money, currencies, times, ids. All pure."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar, Final, Protocol
from uuid import UUID

import iso4217
import msgspec

NewId = Callable[[], UUID]

MAX_MAJOR_UNITS: Final = 10_000_000

# Units without a minor unit of their own (gold, special drawing rights) have no exponent in ISO 4217: whole units only.
CURRENCY_EXPONENTS: Final[dict[str, int]] = {currency.code: currency.exponent or 0 for currency in iso4217.Currency}

_MAX_EXPONENT: Final = max(CURRENCY_EXPONENTS.values())

_DECIMAL_STRING = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)


class Clock(Protocol):
    """Where the time comes from, so that a test can set it."""

    def now(self) -> datetime:
        """The present, in UTC."""
        ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


def given(body: msgspec.Struct) -> dict[str, Any]:
    """The fields of a PATCH that the client sent: the others are UNSET."""
    return {name: value for name, value in msgspec.structs.asdict(body).items() if value is not msgspec.UNSET}


def rfc3339(moment: datetime) -> str:
    """Always six decimals and a Z, so that two times compare as text as they do as times."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def parse_time(text: str) -> datetime:
    """An RFC 3339 time with its offset. Raises ValueError."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None or "T" not in text.upper():
            raise ValueError(text)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError("must be an RFC 3339 time such as 2026-01-31T12:00:00Z") from error


def parse_uuid(text: str) -> UUID:
    """The canonical spelling only; `UUID()` itself also takes braces, URNs and stray hyphens.

    Raises ValueError.
    """
    if not _UUID.fullmatch(text):
        raise ValueError("must be a UUID such as 01a208df-c0d9-756f-80ef-891a5ca24f1b")
    return UUID(text)


class Currency(str):
    """An ISO 4217 code, upper case."""

    __slots__ = ()

    @classmethod
    def parse(cls, raw: object) -> "Currency":
        if not isinstance(raw, str):
            raise ValueError("must be a string: an ISO 4217 code such as USD")
        code = raw.upper() if raw.isascii() else raw
        if code not in CURRENCY_EXPONENTS:
            raise ValueError("must be an ISO 4217 code such as USD, EUR, INR or JPY")
        return cls(code)

    @property
    def exponent(self) -> int:
        """How many decimals the currency has."""
        return CURRENCY_EXPONENTS[self]


class Id(UUID):
    """A UUID in a body."""

    json_schema: ClassVar[dict[str, Any]] = {"type": "string", "format": "uuid"}

    @classmethod
    def parse(cls, raw: object) -> "Id":
        if not isinstance(raw, str):
            raise ValueError("must be a string: a UUID")
        return cls(str(parse_uuid(raw)))


class Moment(datetime):
    """An RFC 3339 time in a body, in UTC."""

    json_schema: ClassVar[dict[str, Any]] = {"type": "string", "format": "date-time"}

    @classmethod
    def parse(cls, raw: object) -> "Moment":
        if not isinstance(raw, str):
            raise ValueError("must be a string: an RFC 3339 time such as 2026-01-31T12:00:00Z")
        return cls.fromisoformat(parse_time(raw).isoformat())


class Amount(Decimal):
    """A positive number of major units as a client sent it, before its currency is known."""

    __slots__ = ()

    @classmethod
    def parse(cls, raw: object) -> "Amount":
        value = exact_decimal(raw)
        if value <= 0:
            raise ValueError("must be greater than 0")
        if value > MAX_MAJOR_UNITS:
            raise ValueError(f"must be at most {MAX_MAJOR_UNITS}")
        digits, exponent = _significant(value)
        if exponent < -_MAX_EXPONENT:
            raise ValueError(f"has too many decimals: no currency has more than {_MAX_EXPONENT}")
        # 50 and "50.00" become one value, so that one is a repeat of the other.
        return cls(f"{digits}e{exponent}")


def exact_decimal(raw: object) -> Decimal:
    """Of a JSON number or a decimal string. Raises ValueError."""
    if isinstance(raw, bool) or not isinstance(raw, (int, str, Decimal)):
        raise ValueError("must be a number, or a decimal string such as '49.99'")
    if isinstance(raw, str) and not _DECIMAL_STRING.fullmatch(raw):
        raise ValueError("must be a number, or a decimal string such as '49.99'")
    value = Decimal(raw)
    if not value.is_finite():
        raise ValueError("must be a finite number")
    return value


class Money(msgspec.Struct, frozen=True):
    """An exact amount: whole minor units (cents, yen, fils) of one currency."""

    minor_units: int
    currency: str

    @classmethod
    def of(cls, amount: Decimal, currency: Currency) -> "Money":
        """Of a positive amount. Raises ValueError if it has more decimals than the currency."""
        digits, exponent = _significant(amount)
        shift = exponent + currency.exponent
        if shift < 0:
            decimals = _decimals_phrase(currency.exponent)
            raise ValueError(f"has too many decimals: {currency} has {decimals}")
        return cls(int(digits) * 10**shift, str(currency))

    def major_units(self) -> Decimal:
        """In major units, with no trailing zeros and no exponent: 5000, 49.9, 0.001."""
        exponent = CURRENCY_EXPONENTS[self.currency]
        whole, part = divmod(self.minor_units, 10**exponent)
        decimals = str(part).rjust(exponent, "0").rstrip("0") if part else ""
        return Decimal(f"{whole}.{decimals}" if decimals else whole)


def _significant(amount: Decimal) -> tuple[str, int]:
    """Digits without trailing zeros, and the exponent of the last one. Decimal's arithmetic rounds at 28 digits."""
    _, digits, exponent = amount.as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits)).rstrip("0")
    return text, exponent + len(digits) - len(text)


def _decimals_phrase(exponent: int) -> str:
    return "no decimals" if exponent == 0 else f"{exponent} decimals"
