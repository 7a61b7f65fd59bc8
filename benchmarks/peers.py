"""The same on another simulator: to create a payment, and to confirm it.

localstripe speaks Stripe's dialect. It keeps what it knows in memory, and writes all of it to a file at each change.
"""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
from tests.support.processes import Gateway, wait_until

from benchmarks import load

CONNECTIONS: Final = 32
ADMIN_KEY: Final = "the-admin-key-of-the-benchmark"
CARD: Final = {"number": "4242424242424242", "exp_month": "12", "exp_year": "2035", "cvc": "123"}


class LocalStripe:
    """A process of it, which is ready."""

    def __init__(self, programs: Path, port: int) -> None:
        command = [str(programs / "localstripe"), "--port", str(port), "--from-scratch"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.client = httpx.Client(base_url=f"http://localhost:{port}", auth=("sk_test_1", ""), trust_env=False)
        wait_until(self._answers)

    def payment_method(self) -> str:
        form = {"type": "card"} | {f"card[{name}]": value for name, value in CARD.items()}
        answer = self.client.post("/v1/payment_methods", data=form)
        answer.raise_for_status()
        name: str = answer.json()["id"]
        return name

    def _answers(self) -> bool:
        try:
            return self.client.get("/v1/customers").is_success
        except httpx.TransportError:
            return False


@contextmanager
def localstripe(programs: Path, port: int) -> Iterator[LocalStripe]:
    server = LocalStripe(programs, port)
    try:
        yield server
    finally:
        server.client.close()
        server.process.terminate()
        server.process.wait()


def of_mockpay(gateway: Gateway, folder: Path, seconds: float) -> tuple[load.Result, float]:
    """Without the velocity rule, which flags payments that come in such numbers: flagged ones can't be confirmed."""
    gateway.end_velocity_rule(ADMIN_KEY)
    [key] = load.registered(gateway, 1)
    return _measured(gateway, "mockpay", key, folder, seconds)


def of_localstripe(server: LocalStripe, folder: Path, seconds: float) -> tuple[load.Result, float]:
    return _measured(server, "localstripe", server.payment_method(), folder, seconds)


def _measured(server: load.Server, peer: str, token: str, folder: Path, seconds: float) -> tuple[load.Result, float]:
    """What was measured, and payments confirmed a second."""
    found = load.measure(
        server, "", [token], folder, connections=CONNECTIONS, seconds=seconds, script="confirm.lua", PEER=peer
    )
    confirmed = re.search(r"CONFIRMED (\d+)", found.output)
    assert confirmed, found.output
    return found, int(confirmed[1]) / found.seconds
