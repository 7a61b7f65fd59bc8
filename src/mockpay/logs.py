"""Logs: JSON lines in production, readable ones in development, and never a secret in either."""

import logging
import sys
from typing import Final

import structlog
from structlog.types import EventDict, Processor

SECRET_NAMES: Final = ("api_key", "admin_key", "secret", "authorization", "password", "database_url")


def redact(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Blank every field whose name says that it holds a credential: the net below the rule not to log one."""
    for name in event:
        if any(secret in name.lower() for secret in SECRET_NAMES):
            event[name] = "[redacted]"
    return event


def escape(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Spell out what a client could forge a line with, or command the terminal: line ends, escape sequences.

    For readable logs. JSON spells it out by itself.
    """
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = "".join(map(_spelled_out, value))
    return event


def _spelled_out(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def configure_logging(*, json_lines: bool, level: str) -> None:
    """Send our events, and those of the libraries, to standard error in one form."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
        redact,
    ]
    last: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if json_lines
        else [
            escape,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for chatty in ("uvicorn.access", "uvicorn.error", "uvicorn", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
