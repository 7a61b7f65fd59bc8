"""The README's tour, run to the letter."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.processes import environment

ROOT = Path(__file__).parents[2]


def blocks() -> list[tuple[str, str]]:
    """Each block of the tour: what it is (server, listen, step), and its commands."""
    text = (ROOT / "README.md").read_text()
    return re.findall(r"<!-- tour: (\w+) -->\n```sh\n(.*?)```", text, re.DOTALL)


def test_the_tour(folder: Path, data_dir: Path) -> None:
    """The server block runs in the background, as in a terminal of its own; the rest is one shell session."""
    found = blocks()
    assert [kind for kind, _ in found].count("server") == 1
    assert len(found) > 8
    steps = "\n".join(f"{commands}" for kind, commands in found if kind != "server")
    settings = environment(MOCKPAY_DATA_DIR=str(data_dir))
    # What `make run` runs, with the interpreter of these tests; a fresh clone is tried by .ci/run's own make.
    with subprocess.Popen(
        [sys.executable, "-m", "mockpay", "serve"],
        env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT,
    ) as server:  # fmt: skip
        try:
            wait = "until curl -sf http://127.0.0.1:3000/ready > ready.txt; do sleep 0.1; done\n"
            script = "set -eu\n" + wait + steps.replace(".venv/bin/mockpay", f"{sys.executable} -m mockpay")
            done = subprocess.run(
                ["bash", "-c", script], env=settings | {"PWD": str(folder)}, cwd=folder, capture_output=True, text=True,
                timeout=120, start_new_session=True, check=False,
            )  # fmt: skip
        finally:
            server.send_signal(signal.SIGTERM)
            subprocess.run(["pkill", "-f", "mockpay listen"], check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in ("Idempotent-Replayed: true", "VALID", '"intact":true', "partially_refunded", '"status":"dead"'):
        assert expected.lower() in done.stdout.lower(), expected + "\n" + done.stdout + done.stderr
    assert "INVALID" not in done.stdout
    assert os.fspath(folder)
