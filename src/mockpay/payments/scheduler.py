"""Lets payments become by themselves what was planned for them. Any number of processes may do so."""

import asyncio
from typing import Final

import structlog

from mockpay.context import Context
from mockpay.errors import DatabaseUnavailable
from mockpay.payments.service import settle_due_outcome

POLL_SECONDS: Final = 0.1
RETRY_SECONDS: Final = 1.0

log = structlog.stdlib.get_logger("mockpay.outcomes")


async def settle_outcomes(context: Context) -> None:
    """Until cancelled. Survives the loss of the database: what was not written is still due."""
    while True:
        try:
            while await settle_due_outcome(context):
                pass
            await asyncio.sleep(POLL_SECONDS)
        except DatabaseUnavailable as error:
            log.warning("can't settle outcomes", cause=repr(error.__cause__))
            await asyncio.sleep(RETRY_SECONDS)
        except Exception:
            log.exception("can't settle outcomes")
            await asyncio.sleep(RETRY_SECONDS)
