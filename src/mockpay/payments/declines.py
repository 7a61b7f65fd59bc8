"""Why a payment fails: the catalogue of failure codes. Pure."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec


class FailureCode(StrEnum):
    CARD_DECLINED = "card_declined"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    EXPIRED_CARD = "expired_card"
    INCORRECT_CVC = "incorrect_cvc"
    AUTHENTICATION_REQUIRED = "authentication_required"
    LIMIT_EXCEEDED = "limit_exceeded"
    DO_NOT_HONOR = "do_not_honor"
    LOST_CARD = "lost_card"
    STOLEN_CARD = "stolen_card"
    PROCESSING_ERROR = "processing_error"
    ISSUER_UNAVAILABLE = "issuer_unavailable"


class Retry(StrEnum):
    """Whether another attempt makes sense."""

    LATER = "later"
    """As it is, after a while."""
    AFTER_CHANGE = "after_change"
    """With other details: another card, a corrected number, an authentication."""
    NEVER = "never"
    """Not with this card, and the customer should not be told why."""


class Decline(msgspec.Struct, frozen=True):
    message: str
    retry: Retry


DECLINES: Final[Mapping[FailureCode, Decline]] = {
    FailureCode.CARD_DECLINED: Decline("The card was declined.", Retry.AFTER_CHANGE),
    FailureCode.INSUFFICIENT_FUNDS: Decline("The account has not enough money.", Retry.LATER),
    FailureCode.EXPIRED_CARD: Decline("The card has expired.", Retry.AFTER_CHANGE),
    FailureCode.INCORRECT_CVC: Decline("The card's security code is wrong.", Retry.AFTER_CHANGE),
    FailureCode.AUTHENTICATION_REQUIRED: Decline("The customer has to authenticate the payment.", Retry.AFTER_CHANGE),
    FailureCode.LIMIT_EXCEEDED: Decline("The card's spending limit is reached.", Retry.LATER),
    FailureCode.DO_NOT_HONOR: Decline("The card's issuer declined without giving a reason.", Retry.AFTER_CHANGE),
    FailureCode.LOST_CARD: Decline("The card was reported lost.", Retry.NEVER),
    FailureCode.STOLEN_CARD: Decline("The card was reported stolen.", Retry.NEVER),
    FailureCode.PROCESSING_ERROR: Decline("An error occurred while the card was processed.", Retry.LATER),
    FailureCode.ISSUER_UNAVAILABLE: Decline("The card's issuer could not be reached.", Retry.LATER),
}
