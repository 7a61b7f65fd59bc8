"""The README's tour, run to the letter."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.processes import Program, environment, running

ROOT = Path(__file__).parents[2]


def blocks() -> list[tuple[str, str]]:
    """Each block of the tour: what it is (server, listen, step), and its commands."""
    text = (ROOT / "README.md").read_text()
    return re.findall(r"<!-- tour: (\w+) -->\n```sh\n(.*?)```", text, re.DOTALL)


def test_the_tour(folder: Path, data_dir: Path) -> None:
    """The first block runs in a terminal of its own; the others are one session of a shell, in their order."""
    (first_kind, first), *others = blocks()
    assert (first_kind, first.strip()) == ("server", "make run")
    assert len(others) > 8
    # What `make run` does once it has installed; the environment of these tests is installed already.
    server = Program(folder / "server.log", "serve", MOCKPAY_DATA_DIR=str(data_dir), MOCKPAY_PORT="3000")
    with running(server):
        server.wait_for_output("MockPay listens on http://127.0.0.1:3000")
        output = session("\n".join(commands for _, commands in others), folder, data_dir)
        assert server.stop() == 0
    for expected in (
        "Listening on http://127.0.0.1:4000/",
        "Listening on http://127.0.0.1:4001/",
        "idempotent-replayed: true",
        '"status":"success"',
        "payment.success  attempt 1\n  X-MockPay-Signature  VALID\n  webhook-signature    VALID",
        "partially_refunded",
        "payment.refunded  attempt 1",
        '"intact": true',
        "1 payments, 3 audit entries: intact",
        "signature of another",
        "payment.failed  attempt 3",
        '"status": "dead"',
        "payment.failed  attempt 4\n  X-MockPay-Signature  VALID\n  webhook-signature    VALID",
    ):
        assert expected in output, f"{expected}\n{output}"
    assert "INVALID" not in output


def session(commands: str, folder: Path, data_dir: Path) -> str:
    """Run the commands as one shell session that stops at the first failure; what it printed."""
    script = "set -eu\n" + commands.replace(".venv/bin/mockpay", f"{sys.executable} -m mockpay")
    log = folder / "session.log"
    with log.open("wb") as output:
        shell = subprocess.Popen(
            ["bash", "-c", script],
            env=environment(MOCKPAY_DATA_DIR=str(data_dir)),
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            code = shell.wait(120)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)  # the listeners, where it ended before it stopped them
    assert code == 0, log.read_text()
    return log.read_text()
