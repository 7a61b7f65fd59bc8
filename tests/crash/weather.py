"""What changes around the clients all the while: fault rules of tenants, and the fraud rules of all."""

import random
import threading
from collections.abc import Sequence
from typing import Any, Final

import httpx

from tests.crash.ledger import Ledger
from tests.support.gateway import bearer

FRAUD_RULES: Final = "/api/admin/fraud-rules"
_VELOCITY: Final = f"{FRAUD_RULES}/00000000-0000-7000-8000-000000000001"
_PAUSE_SECONDS: Final = 0.05
# None of them fires: what becomes of a payment must not depend on them, only the way that it goes.
_NEVER: Final = (
    {"fault": "drop", "event": "fraud.detected", "probability": 0},
    {"fault": "duplicate; copies=3", "every": 1_000_000},
    {"fault": "error; status=503; code=never", "probability": 0},
    {"fault": "reset", "operation": "create", "every": 1_000_000},
)


class Weather:
    """Changes rules, on a thread, until it is stopped. What gets no answer is done or not: either is as good."""

    def __init__(self, seed: int, urls: Sequence[str], admin_key: str, api_keys: Sequence[str], ledger: Ledger) -> None:
        self._chance = random.Random(f"{seed} weather")
        self._urls = urls
        self._admin = bearer(admin_key)
        self._api_keys = api_keys
        self._ledger = ledger
        self._http = httpx.Client(timeout=10, trust_env=False)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="weather")
        self.changes = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """When this returns the rules stay as they are."""
        self._stopping.set()
        self._thread.join()
        self._http.close()

    def _run(self) -> None:
        while not self._stopping.wait(self._chance.random() * _PAUSE_SECONDS):
            tenant = bearer(self._chance.choice(self._api_keys))
            match self._chance.randrange(4):
                case 0 | 1:
                    self._ask("POST", "/api/faults", tenant, self._chance.choice(_NEVER))
                case 2:
                    self._ask("DELETE", "/api/faults", tenant)
                case _:
                    change = {"is_active": self._chance.random() < 0.5, "threshold": self._chance.choice((2, 20, 1000))}
                    self._ask("PATCH", _VELOCITY, self._admin, change)

    def _ask(self, method: str, path: str, headers: dict[str, str], body: dict[str, Any] | None = None) -> None:
        try:
            answer = self._http.request(method, self._chance.choice(self._urls) + path, headers=headers, json=body)
        except httpx.TransportError:
            return
        # A tenant has a hundred rules at most.
        if not answer.is_success and answer.status_code not in (400, 503):
            self._ledger.surprises.append(f"{method} {path}: {answer.status_code} {answer.text}")
        self.changes += answer.is_success
