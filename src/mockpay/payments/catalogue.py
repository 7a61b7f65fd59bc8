"""The route that tells which values decide an outcome, and why payments can fail."""

from decimal import Decimal

import msgspec
from litestar import Response, get

from mockpay import errors
from mockpay.exact_json import encode
from mockpay.payments.declines import DECLINES, FailureCode, Retry
from mockpay.payments.magic_values import AMOUNTS, PAYMENT_METHODS
from mockpay.payments.model import SimulatedStatus
from mockpay.web.answers import json_response
from mockpay.web.openapi import errors as error_answers


class FailureView(msgspec.Struct, frozen=True, kw_only=True):
    """`retry` is whether another attempt makes sense: later, after_change (of the details), never."""

    failure_code: FailureCode
    failure_message: str
    retry: Retry


class MagicMethodView(msgspec.Struct, frozen=True, kw_only=True):
    payment_method: str
    status: SimulatedStatus
    failure_code: FailureCode | None


class MagicAmountView(msgspec.Struct, frozen=True, kw_only=True):
    """In major units of any currency."""

    amount: Decimal
    status: SimulatedStatus
    failure_code: FailureCode | None


class CatalogueView(msgspec.Struct, frozen=True, kw_only=True):
    failure_codes: list[FailureView]
    payment_methods: list[MagicMethodView]
    amounts: list[MagicAmountView]


@get(
    "/api/test-values",
    tags=["payments"],
    summary="List the failure codes, and the values that decide an outcome",
    responses=error_answers(errors.RateLimited, errors.DatabaseUnavailable),
)
async def list_test_values() -> Response[CatalogueView]:
    """A payment with one of these payment methods or amounts succeeds or fails by itself, at once."""
    return json_response(encode(_view()), 200)


def _view() -> CatalogueView:
    return CatalogueView(
        failure_codes=[
            FailureView(failure_code=code, failure_message=decline.message, retry=decline.retry)
            for code, decline in DECLINES.items()
        ],
        payment_methods=[
            MagicMethodView(payment_method=value, status=_status(code), failure_code=code)
            for value, code in PAYMENT_METHODS.items()
        ],
        amounts=[
            MagicAmountView(amount=value, status=_status(code), failure_code=code) for value, code in AMOUNTS.items()
        ],
    )


def _status(code: FailureCode | None) -> SimulatedStatus:
    return SimulatedStatus.SUCCESS if code is None else SimulatedStatus.FAILED


ROUTES = [list_test_values]
