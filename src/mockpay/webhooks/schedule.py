"""When a failed delivery is tried again, and when it is given up. Pure."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from mockpay.settings import Settings

LEASE_MARGIN_SECONDS: Final = 5.0
"""How much longer than the longest attempt a claim is held: time to sign before it and to write the result after it."""

_SUCCESS: Final = range(200, 300)
_GONE: Final = 410
_LONGEST_DELAY_SECONDS: Final = 86_400.0


@dataclass(frozen=True)
class Schedule:
    max_attempts: int
    backoff_seconds: float
    timeout_seconds: float

    @classmethod
    def of(cls, settings: Settings) -> "Schedule":
        return cls(settings.webhook_attempts, settings.webhook_backoff_seconds, settings.webhook_timeout_seconds)

    @property
    def lease(self) -> timedelta:
        """How long a claim holds. A worker that was killed, or froze, loses it after this."""
        return timedelta(seconds=self.timeout_seconds + LEASE_MARGIN_SECONDS)

    def delay_after(self, attempt: int, random: float) -> timedelta:
        """The wait after a failed attempt, counted from 1: doubling, and up to a half more by `random` (0 to 1).

        Jitter only adds, so the shortest wait is the documented one.
        """
        doubled = self.backoff_seconds * 2.0 ** min(attempt - 1, 30)
        return timedelta(seconds=min(doubled, _LONGEST_DELAY_SECONDS) * (1 + random / 2))


def is_success(response_status: int | None) -> bool:
    return response_status in _SUCCESS


def is_final(response_status: int | None) -> bool:
    """410 Gone: the receiver asks never to be called again."""
    return response_status == _GONE
