"""How many requests a tenant, or a client address without one, may make in a window of time.

The windows are fixed: the first request opens one, and its end is the same for every process and node, since the
database keeps both the count and the time.
"""

import math
import time
from typing import Any, Final

import asyncpg
import msgspec
from limits import RateLimitItemPerSecond
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter

from mockpay.postgres.pool import Connection
from mockpay.settings import RateLimitTier, Settings

UNLIMITED: Final = 1_000_000_000
"""What the headers say where there is no limit: a client that reads them needs a number."""

# One statement counts, however many processes there are: the row's lock makes it exact.
_HIT_SQL: Final = """
INSERT INTO rate_limits AS held (key, hits, expires_at)
VALUES ($1, $2, now() + $3::float8 * interval '1 second')
ON CONFLICT (key) DO UPDATE SET
    hits = CASE WHEN held.expires_at <= now() THEN excluded.hits ELSE held.hits + excluded.hits END,
    expires_at = CASE WHEN held.expires_at <= now() THEN excluded.expires_at ELSE held.expires_at END
RETURNING hits, extract(epoch FROM expires_at - now())::float8 AS seconds_left
"""
_READ_SQL: Final = """
SELECT hits, extract(epoch FROM expires_at - now())::float8 AS seconds_left
FROM rate_limits WHERE key = $1 AND expires_at > now()
"""
_CLEAR_SQL: Final = "DELETE FROM rate_limits WHERE key = $1"
_RESET_SQL: Final = "DELETE FROM rate_limits"
_FORGET_EXPIRED_SQL: Final = "DELETE FROM rate_limits WHERE expires_at <= now()"


class Window(msgspec.Struct, frozen=True):
    """What the RateLimit-* headers say. `reset_seconds` is from now."""

    limit: int
    remaining: int
    reset_seconds: int
    is_exceeded: bool

    def headers(self) -> dict[str, str]:
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset_seconds),
        }


class PostgresStorage(Storage):
    """Counts for the `limits` library in the table rate_limits, over the connection of one request.

    It remembers what its own hit returned: the statistics that the strategy asks for next cost no round trip.
    """

    STORAGE_SCHEME = ["async+postgresql"]  # noqa: RUF012 - the library wants it so

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self._seen: dict[str, tuple[int, float]] = {}

    @property
    def base_exceptions(self) -> type[Exception]:
        return asyncpg.PostgresError

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        row = await self._connection.fetchrow(_HIT_SQL, key, amount, float(expiry))
        return self._remember(key, row)[0]

    async def get(self, key: str) -> int:
        return (await self._window(key))[0]

    async def get_expiry(self, key: str) -> float:
        """In seconds since 1970 by this machine's clock; how long it is until then is by the database's."""
        return (await self._window(key))[1]

    async def check(self) -> bool:
        return not self._connection.is_closed()

    async def reset(self) -> int | None:
        self._seen.clear()
        return int((await self._connection.execute(_RESET_SQL)).split()[-1])

    async def clear(self, key: str) -> None:
        self._seen.pop(key, None)
        await self._connection.execute(_CLEAR_SQL, key)

    async def _window(self, key: str) -> tuple[int, float]:
        if key in self._seen:
            return self._seen[key]
        return self._remember(key, await self._connection.fetchrow(_READ_SQL, key))

    def _remember(self, key: str, row: Any) -> tuple[int, float]:
        hits, seconds_left = (row["hits"], row["seconds_left"]) if row else (0, 0.0)
        self._seen[key] = (hits, time.time() + seconds_left)
        return self._seen[key]


def limit_of(settings: Settings, tier: RateLimitTier) -> int | None:
    """Requests in a window; None where the tier has no limit."""
    match tier:
        case "standard":
            return settings.rate_limit_standard
        case "high":
            return settings.rate_limit_high
        case "unlimited":
            return None


def unlimited(settings: Settings) -> Window:
    return Window(UNLIMITED, UNLIMITED, settings.rate_limit_window_seconds, is_exceeded=False)


async def hit(connection: Connection, settings: Settings, tier: RateLimitTier, whom: str) -> Window:
    """Count one request of `whom`, and say what is left."""
    limit = limit_of(settings, tier)
    if limit is None:
        return unlimited(settings)
    item = RateLimitItemPerSecond(limit, settings.rate_limit_window_seconds)
    limiter = FixedWindowRateLimiter(PostgresStorage(connection))
    is_within = await limiter.hit(item, whom)
    stats = await limiter.get_window_stats(item, whom)
    reset_seconds = max(1, math.ceil(stats.reset_time - time.time()))
    return Window(limit, stats.remaining, reset_seconds, is_exceeded=not is_within)


async def forget_expired(connection: Connection) -> None:
    """Windows that are over count for nothing; client addresses would pile up."""
    await connection.execute(_FORGET_EXPIRED_SQL)
