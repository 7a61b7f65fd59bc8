"""The events that receivers of webhooks hear of: what a status change is called, and what a fault may be about."""

from enum import StrEnum


class Event(StrEnum):
    SUCCESS = "payment.success"
    FAILED = "payment.failed"
    REFUNDED = "payment.refunded"
    """In full or in part."""
    FRAUD = "fraud.detected"
