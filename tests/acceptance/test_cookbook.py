"""docs/scenarios.md, run to the letter: each block of commands prints what the page says that it prints."""

import re
import subprocess
import sys
from pathlib import Path

from mockpay.scenarios.model import FAULTS_MAX, read_scenario
from mockpay.scenarios.ready import FILES
from mockpay.scenarios.requests import FILE_LENGTH_MAX
from tests.acceptance.conftest import Start
from tests.support.processes import environment
from tests.support.servers import free_port

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scenarios.md").read_text()
END = "--- end of the block ---"


def blocks() -> list[tuple[str, str]]:
    """Commands, and what they print: … stands for anything within a line, or by itself for any lines."""
    return re.findall(r"<!-- run -->\n```sh\n(.*?)```\n(?:\n```text\n(.*?)```)?", PAGE, re.DOTALL)


def test_every_example_is_run() -> None:
    assert PAGE.count("```sh") == PAGE.count("<!-- run -->") == len(blocks())
    assert all(expected for _, expected in blocks()[1:])
    assert f"{FAULTS_MAX} faults and {FILE_LENGTH_MAX} characters" in PAGE
    for name, text in FILES.items():
        assert f"| `{name}` | {read_scenario(text).teaches} |" in PAGE
        assert f'run_scenario \'{{"name": "{name}"' in PAGE


def test_the_cookbook(folder: Path, start: Start) -> None:
    """One session of a shell, as who reads the page has it."""
    gateway = start(MOCKPAY_WEBHOOK_BACKOFF_SECONDS="0.1")
    (folder / "examples").symlink_to(ROOT / "examples")
    script = "set -eu\n" + "".join(f"{commands}\necho '{END}'\n" for commands, _ in blocks())
    server = str(gateway.client.base_url).rstrip("/")
    script = script.replace("http://127.0.0.1:3000", server).replace("4000", str(free_port()))
    script = re.sub(r"\bpython3\b", f"{sys.executable} -u", script)
    ran = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment(MOCKPAY_URL=server, QUIET_SECONDS="0.8"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    printed = ran.stdout.split(f"{END}\n")
    for (commands, expected), output in zip(blocks(), printed, strict=False):
        assert re.fullmatch(pattern(expected), output), f"{commands}\n{expected}\nbut it printed\n{output}"


def pattern(expected: str) -> str:
    lines = [
        r"(.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*?") + r"\n" for line in expected.splitlines()
    ]
    return "".join(lines)
