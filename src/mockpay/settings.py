"""Every setting: its name, default and help, in one frozen table.

The command line makes a flag of each, and `MOCKPAY_<NAME>` in the environment sets it as well.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_network
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter
from platformdirs import user_data_path

from mockpay.errors import StartupError

ENVIRONMENT_PREFIX: Final = "MOCKPAY_"
ADMIN_KEY_LENGTH_MIN: Final = 16
_ADMIN_KEY: Final = re.compile(rf"[!-~]{{{ADMIN_KEY_LENGTH_MIN},}}")
_ORIGIN: Final = re.compile(r"https?://[^/?#\s@]+")

RateLimitTier = Literal["standard", "high", "unlimited"]
LogLevel = Literal["debug", "info", "warning", "error"]
Environment = Literal["development", "production"]
Switch = Literal["on", "off"]


def _between(low: float, high: float) -> Callable[[type, Any], None]:
    def check(_type: type, value: float) -> None:
        if not (isfinite(value) and low <= value <= high):
            raise ValueError(f"Must be from {low:g} to {high:g}.")

    return check


def _default_data_dir() -> Path:
    try:
        return user_data_path("mockpay", appauthor=False)
    except RuntimeError:  # this user has no home folder; whoever sets another folder needs none
        return Path("~/.local/share/mockpay")


@dataclass(frozen=True, kw_only=True)
class Settings:
    host: str = "127.0.0.1"
    """The address to listen on."""

    port: Annotated[int, Parameter(validator=_between(0, 65535))] = 3000
    """The port to listen on. 0 takes a free one and prints it."""

    workers: Annotated[int, Parameter(validator=_between(1, 64))] = 1
    """How many API processes to run."""

    data_dir: Path = field(default_factory=_default_data_dir)
    """The folder of the embedded database and the development admin key."""

    database_url: Annotated[str | None, Parameter(show_default=False)] = None
    """An existing PostgreSQL (15 or newer) to use in place of the embedded one."""

    migration_database_url: Annotated[str | None, Parameter(show_default=False)] = None
    """The same database as the role that owns the tables, where the other URL's role should have no right to change
    them. Only `serve` and `migrate` use it, and give the other role the rights it needs."""

    database_connections: Annotated[int, Parameter(validator=_between(2, 1000))] = 16
    """The most connections that a process opens to the database."""

    admin_key: Annotated[str | None, Parameter(show_default=False)] = None
    """The key of the admin routes. In development one is made at the first start and kept in the data folder."""

    env: Environment = "development"
    """In production a database URL and an admin key are required, logs are JSON, private webhook URLs refused."""

    log_level: LogLevel = "info"
    """The least severe log line that is written."""

    faults: Annotated[Switch | None, Parameter(show_default=False)] = None
    """Whether tenants may ask for faults, by the header X-MockPay-Fault and by rules. On in development, off in
    production unless set."""

    request_timeout_seconds: Annotated[float, Parameter(validator=_between(0.1, 3600))] = 30.0
    """How long a client may take to send a whole request, and to take its answer, before its connection is closed."""

    cors_origins: Annotated[str, Parameter(show_default=False)] = ""
    """The web origins whose pages may call the API, divided by commas; * is every one. None if empty."""

    trusted_proxies: Annotated[str, Parameter(show_default=False)] = ""
    """The addresses of reverse proxies whose X-Forwarded-For is believed, divided by commas. None if empty."""

    rate_limit_tier: RateLimitTier = "standard"
    """The rate limit tier of a new tenant, and of every client address that has no tenant yet."""

    rate_limit_window_seconds: Annotated[int, Parameter(validator=_between(1, 86400))] = 900
    """The time in which a tier's requests are counted."""

    rate_limit_standard: Annotated[int, Parameter(validator=_between(1, 1_000_000_000))] = 100
    """How many requests a tenant of the tier standard may make in that time."""

    rate_limit_high: Annotated[int, Parameter(validator=_between(1, 1_000_000_000))] = 10_000
    """How many requests a tenant of the tier high may make in that time."""

    unlimited: bool = False
    """Lifts every rate limit and every fraud rule that counts payments, for a day of work."""

    webhook_attempts: Annotated[int, Parameter(validator=_between(1, 100))] = 3
    """How often a webhook is tried before its delivery is dead."""

    webhook_backoff_seconds: Annotated[float, Parameter(validator=_between(0.001, 86400))] = 2.0
    """The wait after the first failed attempt; it doubles after each further one, and jitter adds up to a half."""

    webhook_timeout_seconds: Annotated[float, Parameter(validator=_between(0.05, 300))] = 5.0
    """How long a receiver may take to answer."""

    webhook_concurrency: Annotated[int, Parameter(alias="--concurrency", validator=_between(1, 10_000))] = 64
    """How many webhooks a worker sends at once."""

    webhook_concurrency_per_tenant: Annotated[int, Parameter(validator=_between(1, 10_000))] = 32
    """How many of these may be one tenant's, so that it can't hold up the others."""

    webhook_concurrency_per_host: Annotated[int, Parameter(validator=_between(1, 10_000))] = 16
    """How many of these may go to one receiver host, so that a dead one can't hold up the others."""

    webhook_secret_grace_seconds: Annotated[int, Parameter(validator=_between(0, 31_536_000))] = 86_400
    """How long a rotated webhook secret goes on signing beside the new one."""

    worker_metrics_port: Annotated[int, Parameter(validator=_between(0, 65535))] = 0
    """Where `mockpay worker` alone serves its figures for Prometheus, on the host of the settings. 0: nowhere."""

    webhook_retention_days: Annotated[int, Parameter(validator=_between(0, 36_500))] = 30
    """How long delivered webhooks are kept, with their attempts. 0 keeps them for ever; dead ones are always kept."""

    timeline_hours: Annotated[int, Parameter(validator=_between(0, 8_760))] = 24
    """How long requests are kept for the timeline. 0 keeps none; payments, audit trail and webhooks are kept anyway."""

    idempotency_hours: Annotated[int, Parameter(validator=_between(0, 876_000))] = 720
    """How long an Idempotency-Key stands for its answer; then it is free again. 0 keeps it for ever."""

    @property
    def is_production(self) -> bool:
        return self.env == "production"

    @property
    def data_folder(self) -> Path:
        """The folder as it can be opened. Raises StartupError where it is below a home folder that there is not."""
        try:
            return self.data_dir.expanduser()
        except RuntimeError as error:
            raise StartupError(
                f"MOCKPAY_DATA_DIR is {self.data_dir}, and this user has no home folder; "
                "set it to a folder that this user can write to."
            ) from error

    @property
    def faults_are_on(self) -> bool:
        return self.faults == "on" or (self.faults is None and not self.is_production)

    @property
    def start_patience_seconds(self) -> float:
        """How long a start waits for its database. Ours is started again if it ends; another must be there."""
        return 0.0 if self.database_url else 30.0


def words(setting: str) -> list[str]:
    """Of a setting that holds several values, divided by commas."""
    return [word.strip() for word in setting.split(",") if word.strip()]


def check(settings: Settings) -> None:
    """What the types can't say, and secrets, which the command line's own validation would quote.

    Raises StartupError.
    """
    _check_secrets(settings)
    for origin in words(settings.cors_origins):
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise StartupError(
                f"MOCKPAY_CORS_ORIGINS: '{origin}' is no origin; write it like https://shop.example:8080."
            )
    for proxy in words(settings.trusted_proxies):
        _check_proxy(proxy)


def _check_proxy(proxy: str) -> None:
    try:
        ip_network(proxy)
    except ValueError as error:
        raise StartupError(
            f"MOCKPAY_TRUSTED_PROXIES: '{proxy}' is no IP address or network; write it like 10.0.0.7 or 10.0.0.0/8."
        ) from error


def _check_secrets(settings: Settings) -> None:
    for url, name in (
        (settings.database_url, "MOCKPAY_DATABASE_URL"),
        (settings.migration_database_url, "MOCKPAY_MIGRATION_DATABASE_URL"),
    ):
        if url is not None and not url.startswith(("postgres://", "postgresql://")):
            raise StartupError(f"{name} must be a URL like postgresql://user:password@host:5432/database.")
    if settings.migration_database_url and not settings.database_url:
        raise StartupError(
            "MOCKPAY_MIGRATION_DATABASE_URL is set, and MOCKPAY_DATABASE_URL is not; set it to the role that requests "
            "are served as."
        )
    if settings.admin_key is not None and not _ADMIN_KEY.fullmatch(settings.admin_key):
        raise StartupError(
            f"MOCKPAY_ADMIN_KEY must be at least {ADMIN_KEY_LENGTH_MIN} characters long, "
            "of those that a header can carry: printable ASCII without spaces."
        )


def environment_name(field: str) -> str:
    return ENVIRONMENT_PREFIX + field.upper()
