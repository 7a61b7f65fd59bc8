"""Who may do what on a server as it is run: the admin key of the first start, clients behind a proxy, metrics."""

import stat
from pathlib import Path
from urllib.request import urlopen

import httpx
import pytest

from tests.acceptance.conftest import Start
from tests.support.processes import Program, run, running
from tests.support.servers import free_port


def test_the_admin_key_of_the_first_start_opens_the_admin_routes(start: Start, data_dir: Path) -> None:
    gateway = start(MOCKPAY_DATA_DIR=str(data_dir))
    file = data_dir / "admin_key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert str(file) in gateway.output
    key = file.read_text().strip()
    assert len(bytes.fromhex(key)) == 32
    answers = {
        token: gateway.client.get("/api/admin/users", headers={"Authorization": f"Bearer {token}"}).status_code
        for token in (key, gateway.register()["api_key"], "ab" * 32)
    }
    assert list(answers.values()) == [200, 403, 401]
    assert key not in gateway.output


@pytest.mark.parametrize(("trusted", "statuses"), [("127.0.0.1", [201, 201, 429]), ("", [201, 429, 429])])
def test_clients_behind_a_proxy_are_told_apart_if_it_is_trusted(
    start: Start, trusted: str, statuses: list[int]
) -> None:
    gateway = start(MOCKPAY_RATE_LIMIT_STANDARD="1", MOCKPAY_TRUSTED_PROXIES=trusted)
    answers: list[httpx.Response] = []
    for number, address in enumerate(("192.0.2.1", "192.0.2.2", "192.0.2.2")):
        body = {"name": "T", "email": f"tenant-{number}@example.com"}
        headers = {"X-Forwarded-For": address}
        answers.append(gateway.client.post("/api/auth/register", json=body, headers=headers))
    assert [answer.status_code for answer in answers] == statuses


def test_a_worker_alone_can_be_watched(folder: Path, database_url: str) -> None:
    port = free_port()
    settings = {"MOCKPAY_DATABASE_URL": database_url, "MOCKPAY_WORKER_METRICS_PORT": str(port)}
    worker = Program(folder / "worker.log", "worker", **settings)
    with running(worker):
        worker.wait_for_output("delivery worker runs")
        with urlopen(f"http://127.0.0.1:{port}/metrics") as response:
            assert "mockpay_webhook_attempts_total" in response.read().decode()
        taken = run("worker", **settings)
        assert taken.returncode == 1
        assert "MOCKPAY_WORKER_METRICS_PORT" in taken.stderr
        assert worker.stop() == 0
