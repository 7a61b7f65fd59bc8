"""The program as a user runs it: a process of its own, reached over HTTP."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

START_TIMEOUT_SECONDS = 60
VELOCITY_RULE = "/api/admin/fraud-rules/00000000-0000-7000-8000-000000000001"


def environment(**settings: str) -> dict[str, str]:
    """The test's own environment, but for what it sets of MockPay."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MOCKPAY_")}
    return kept | settings


def run(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run `mockpay ...` to its end."""
    command = [sys.executable, "-m", "mockpay", *arguments]
    return subprocess.run(
        command, env=environment(**settings), capture_output=True, text=True, timeout=START_TIMEOUT_SECONDS, check=False
    )


class Program:
    """A `mockpay ...` that runs. Its output goes to a file that the tests can read at any time."""

    module = "mockpay"
    within: tuple[str, ...] = ()
    """What it is started by, such as a shell that sets a limit first."""

    def __init__(self, log: Path, *arguments: str, **settings: str) -> None:
        self.log = log
        command = [*self.within, sys.executable, "-m", self.module, *arguments]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command, env=environment(**settings), stdout=output, stderr=output, start_new_session=True
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait_for_output(self, pattern: str) -> re.Match[str]:
        found: list[re.Match[str]] = []

        def look() -> bool:
            found.extend(re.finditer(pattern, self.output))
            assert found or self.process.poll() is None, self.output
            return bool(found)

        wait_until(look)
        return found[-1]

    def kill(self) -> None:
        """kill -9: no chance to tidy up."""
        self.process.kill()
        self.process.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)


class Gateway(Program):
    """`mockpay serve` or `mockpay api`, on a free port."""

    def __init__(self, log: Path, command: str = "serve", **settings: str) -> None:
        log.unlink(missing_ok=True)
        super().__init__(log, command, **{"MOCKPAY_PORT": "0"} | settings)
        base_url = self.wait_for_output(r"MockPay listens on (http://\S+)")[1]
        self.client = httpx.Client(base_url=base_url, timeout=20, trust_env=False)

    def register(self, email: str = "me@example.com") -> dict[str, Any]:
        """Register a tenant, and act for it from now on."""
        response = self.client.post("/api/auth/register", json={"name": "Me", "email": email})
        assert response.status_code == 201, response.text
        tenant: dict[str, Any] = response.json()
        self.act_for(tenant)
        return tenant

    def act_for(self, tenant: dict[str, Any]) -> None:
        self.client.headers["Authorization"] = f"Bearer {tenant['api_key']}"

    def end_velocity_rule(self, admin_key: str) -> None:
        """For tests that make more payments than it lets pass."""
        end_velocity_rule(str(self.client.base_url), admin_key)

    def pay(self, webhook_url: str | None, key: str = "k", status: str = "success") -> str:
        """Create a payment and let it succeed; its id."""
        body = {"amount": 49.99, "currency": "USD", "webhook_url": webhook_url}
        created = self.client.post("/api/payments", json=body, headers={"Idempotency-Key": key})
        assert created.status_code == 201, created.text
        payment_id: str = created.json()["id"]
        simulated = self.client.post(f"/api/payments/{payment_id}/simulate", json={"status": status})
        assert simulated.status_code == 200, simulated.text
        return payment_id

    def delivery(self, payment_id: str) -> dict[str, Any]:
        """The payment's only delivery."""
        [delivery] = self.client.get(f"/api/payments/{payment_id}/deliveries").json()["deliveries"]
        found: dict[str, Any] = delivery
        return found


def end_velocity_rule(base_url: str, admin_key: str) -> None:
    headers = {"Authorization": f"Bearer {admin_key}"}
    off = httpx.patch(base_url.rstrip("/") + VELOCITY_RULE, json={"is_active": False}, headers=headers, trust_env=False)
    assert off.status_code == 200, off.text


@contextlib.contextmanager
def running(program: Program) -> Iterator[None]:
    """Whatever becomes of the test, nothing of the program is left running, the embedded server included."""
    try:
        yield
    finally:
        if program.process.poll() is None:
            program.kill()
        if isinstance(program, Gateway):
            program.client.close()


def database_processes(data_dir: Path) -> list[psutil.Process]:
    """The PostgreSQL processes whose data is in this folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.name().startswith("postgres") and Path(process.cwd()) == data_dir / "postgres":
                found.append(process)
    return found


def kill_database(data_dir: Path) -> None:
    """kill -9 of the whole server. Its processes end by themselves too when they miss the first of them."""
    processes = database_processes(data_dir)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)


def wait_until(question: Callable[[], bool], timeout_seconds: float = START_TIMEOUT_SECONDS) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not question():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
