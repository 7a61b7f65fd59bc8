"""Values that decide a payment's outcome by themselves, as a provider's test cards do. Pure.

Stated once here: requests are judged by these tables, and GET /api/test-values shows them.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, ClassVar, Final

from mockpay.payments.declines import FailureCode

PAYMENT_METHODS: Final[Mapping[str, FailureCode | None]] = {
    "pm_success": None,
    **{f"pm_{code}": code for code in FailureCode},
    # The numbers that developers know from other providers' documentation. None of them is anybody's.
    "4242424242424242": None,
    "4000000000000002": FailureCode.CARD_DECLINED,
    "4000000000009995": FailureCode.INSUFFICIENT_FUNDS,
    "4000000000000069": FailureCode.EXPIRED_CARD,
    "4000000000000127": FailureCode.INCORRECT_CVC,
    "4000002500003155": FailureCode.AUTHENTICATION_REQUIRED,
    "4000000000009987": FailureCode.LOST_CARD,
    "4000000000009979": FailureCode.STOLEN_CARD,
    "4000000000000119": FailureCode.PROCESSING_ERROR,
}
"""The failure that each leads to; None is success."""

FIRST_AMOUNT: Final = 66_600
AMOUNTS: Final[Mapping[Decimal, FailureCode | None]] = {
    Decimal(FIRST_AMOUNT + number): code for number, code in enumerate([None, *FailureCode])
}
"""Whole major units, so that each currency has them, and below the default amount limit."""

_METHOD: Final = re.compile(
    rf"[A-Za-z_][A-Za-z0-9_.:-]{{0,99}}|{'|'.join(number for number in PAYMENT_METHODS if number.isdigit())}"
)


class PaymentMethod(str):
    """A test value, or a name of the client's own. Never a card number that may be somebody's."""

    __slots__ = ()
    json_schema: ClassVar[dict[str, Any]] = {
        "type": "string",
        "pattern": f"^({_METHOD.pattern})$",
        "examples": ["pm_success"],
    }

    @classmethod
    def parse(cls, raw: object) -> "PaymentMethod":
        if not isinstance(raw, str) or not _METHOD.fullmatch(raw):
            raise ValueError(
                "must be a value of GET /api/test-values, or a name of your own: at most 100 letters, digits and _.:- "
                "that do not begin with a digit, so that no real card number gets here"
            )
        return cls(raw)
