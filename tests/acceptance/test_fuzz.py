"""schemathesis over every route, as a tenant and as the administrator, with all of its checks."""

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.acceptance.conftest import Start
from tests.support.servers import free_port

ROOT = Path(__file__).parents[2]
ADMIN_KEY = "the-admin-key-of-the-tests"
EXAMPLES = 10


@pytest.mark.parametrize("role", ["tenant", "admin"])
def test_the_api_keeps_to_its_document(start: Start, folder: Path, role: str) -> None:
    gateway = start(
        MOCKPAY_RATE_LIMIT_TIER="unlimited", MOCKPAY_ADMIN_KEY=ADMIN_KEY, MOCKPAY_LOG_LEVEL="error",
        MOCKPAY_WEBHOOK_ATTEMPTS="1",
    )  # fmt: skip
    key = gateway.register()["api_key"]
    for number in range(3):  # dead letters, which can be replayed
        gateway.pay(f"http://127.0.0.1:{free_port()}/", key=f"dead-{number}")
    if role == "admin":
        key = ADMIN_KEY
    outcomes = folder / "outcomes"
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "tests.support.fuzzing",
        "FUZZ_KEY": key,
        "FUZZ_OUTCOMES": str(outcomes),
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
    }
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--config-file", "tests/support/fuzzing.toml",
        "run", f"{gateway.client.base_url}/openapi.json", "--checks", "all", "--max-examples", str(EXAMPLES),
        "--seed", "20260131", "--generation-database", "none", "--generation-allow-x00", "false", "--no-color",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    succeeded: dict[str, bool] = defaultdict(bool)
    for line in outcomes.read_text().splitlines():
        method, path, status = line.split()
        succeeded[f"{method} {path}"] |= status.startswith("2")
    mine = {
        f"{method.upper()} {path}"
        for path, item in gateway.client.get("/openapi.json").json()["paths"].items()
        for method in item
        if ("/admin/" in path) is (role == "admin")
    }
    assert {route for route in mine if not succeeded[route]} <= {"GET /openapi.json"}  # which it was told of first
