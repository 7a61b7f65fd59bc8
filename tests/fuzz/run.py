"""schemathesis over the routes of a running server, with all of its checks."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from tests.support.processes import Gateway, kill_database, running
from tests.support.servers import free_port

Role = Literal["tenant", "admin"]
ROLES: Final[tuple[Role, ...]] = ("tenant", "admin")
ADMIN_KEY: Final = "the-admin-key-of-the-tests"
_ROOT: Final = Path(__file__).parents[2]
_CONFIGURATION: Final = "tests/fuzz/schemathesis.toml"
_SCHEMA: Final = "GET /openapi.json"  # which schemathesis asks for before it counts


@dataclass
class Outcome:
    exit_code: int
    output: str
    requests: int = 0
    expected: set[str] = field(default_factory=set)
    """Operations that the role may use, such as "GET /api/payments"."""
    succeeded: set[str] = field(default_factory=set)
    """Those that were answered with a 2xx at least once: what never is, is not tried by what it takes to pass."""

    @property
    def problems(self) -> list[str]:
        never = [f"never answered with a 2xx: {operation}" for operation in sorted(self.expected - self.succeeded)]
        return never if self.exit_code == 0 else [self.output, *never]


@contextmanager
def gateway_to_fuzz(folder: Path) -> Iterator[Gateway]:
    settings = {
        "MOCKPAY_DATA_DIR": str(folder / "data"),
        "MOCKPAY_RATE_LIMIT_TIER": "unlimited",
        "MOCKPAY_ADMIN_KEY": ADMIN_KEY,
        "MOCKPAY_LOG_LEVEL": "error",
        "MOCKPAY_WEBHOOK_ATTEMPTS": "1",
    }
    gateway = Gateway(folder / "serve.log", **settings)
    try:
        with running(gateway):
            yield gateway
            gateway.stop()
    finally:
        kill_database(folder / "data")


def fuzz(gateway: Gateway, folder: Path, role: Role, *options: str, seed: int) -> Outcome:
    """As a new tenant or as the administrator. `options` are schemathesis's: which operations, and how long."""
    key = gateway.register()["api_key"]
    for number in range(3):  # dead letters, which can be replayed
        gateway.pay(f"http://127.0.0.1:{free_port()}/", key=f"dead-{number}")
    outcomes = folder / f"outcomes-{role}"
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks",
        "FUZZ_KEY": ADMIN_KEY if role == "admin" else key,
        "FUZZ_OUTCOMES": str(outcomes),
        "PYTHONPATH": str(_ROOT),
        "PYTHONWARNINGS": "ignore",
    }
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--config-file", _CONFIGURATION,
        "run", f"{gateway.client.base_url}/openapi.json", "--checks", "all", "--seed", str(seed),
        "--generation-database", "none", "--generation-allow-x00", "false", "--no-color", *options,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = [line.split() for line in outcomes.read_text().splitlines()] if outcomes.exists() else []
    return Outcome(
        exit_code=done.returncode,
        output=done.stdout + done.stderr,
        requests=len(lines),
        expected=_operations(gateway, role),
        succeeded={f"{method} {path}" for method, path, status in lines if status.startswith("2")},
    )


def _operations(gateway: Gateway, role: Role) -> set[str]:
    return {
        f"{method.upper()} {path}"
        for path, item in gateway.client.get("/openapi.json").json()["paths"].items()
        for method in item
        if ("/admin/" in path) is (role == "admin")
    } - {_SCHEMA}
