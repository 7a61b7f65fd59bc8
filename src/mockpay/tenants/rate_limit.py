"""How many requests a tenant, or a client address without one, may make in a window of time. Pure.

The windows are fixed: the first request opens one, and its end is the same for every process and node, since the
database keeps both the count and the time.
"""

import math
from typing import Final, get_args

import msgspec

from mockpay.errors import RateLimited
from mockpay.limits import LIFT, Allowance
from mockpay.settings import RateLimitTier, Settings
from mockpay.tenants.model import Tenant

UNLIMITED: Final = 1_000_000_000
"""What the headers say where there is no limit: a client that reads them needs a number."""


class Window(msgspec.Struct, frozen=True):
    """What the RateLimit-* headers say. `reset_seconds` is from now."""

    limit: int
    remaining: int
    reset_seconds: int
    is_exceeded: bool

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"ratelimit-limit", b"%d" % self.limit),
            (b"ratelimit-remaining", b"%d" % self.remaining),
            (b"ratelimit-reset", b"%d" % self.reset_seconds),
        ]


def limit_of(settings: Settings, tier: RateLimitTier) -> int | None:
    """Requests in a window; None where the tier has no limit, or the setting `unlimited` lifts all of them."""
    if settings.unlimited:
        return None
    match tier:
        case "standard":
            return settings.rate_limit_standard
        case "high":
            return settings.rate_limit_high
        case "unlimited":
            return None


def limits(settings: Settings) -> dict[RateLimitTier, int]:
    """Of the tiers that have one."""
    found = {tier: limit_of(settings, tier) for tier in get_args(RateLimitTier)}
    return {tier: limit for tier, limit in found.items() if limit is not None}


def allowance_of(settings: Settings, tier: RateLimitTier) -> Allowance | None:
    """Returns the same with the window that it is counted in."""
    limit = limit_of(settings, tier)
    return None if limit is None else Allowance(limit, settings.rate_limit_window_seconds)


def refusal(settings: Settings, tenant: Tenant | None, window: Window) -> RateLimited:
    """Says which limit it was, whose, and what lifts it."""
    tier = tenant.rate_limit_tier if tenant else settings.rate_limit_tier
    limit = Allowance(window.limit, settings.rate_limit_window_seconds)
    by = f"MOCKPAY_RATE_LIMIT_{tier.upper()}, MOCKPAY_RATE_LIMIT_WINDOW_SECONDS"
    if tenant:
        whose = "a tenant"
        lift = f", PATCH /api/admin/users/{tenant.id} for this tenant, MOCKPAY_RATE_LIMIT_TIER for new ones"
    else:
        whose, lift = "an address without a tenant", " or MOCKPAY_RATE_LIMIT_TIER"
    return RateLimited(
        f"Too many requests: {whose} may make {limit} in the tier {tier} ({by}); nothing was done, try again in "
        f"{window.reset_seconds} seconds. To lift it: 'mockpay serve {LIFT}' for everybody{lift}.",
        window.reset_seconds,
    )


def unlimited(settings: Settings) -> Window:
    return Window(UNLIMITED, UNLIMITED, settings.rate_limit_window_seconds, is_exceeded=False)


def window_after(hit: int, limit: int, seconds_left: float) -> Window:
    """As the request sees it that was the `hit`-th of its window, counted from 1."""
    reset_seconds = max(1, math.ceil(seconds_left))
    return Window(limit, max(0, limit - hit), reset_seconds, is_exceeded=hit > limit)
