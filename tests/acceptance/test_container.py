"""What the Dockerfile has run inside the container, against a gateway."""

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.acceptance.conftest import Start
from tests.support.processes import environment

DOCKERFILE = Path(__file__).parents[2] / "Dockerfile"


def health_check(port: int) -> int:
    """Its exit code: 0 is healthy, 1 is not."""
    [written] = re.findall(r"^HEALTHCHECK .*\\\n *CMD (\[.+\])$", DOCKERFILE.read_text(), re.MULTILINE)
    program, *arguments = json.loads(written)
    assert program == "python"
    through_a_proxy = environment(MOCKPAY_PORT=str(port), http_proxy="http://127.0.0.1:9")
    return subprocess.run(
        [sys.executable, *arguments], env=through_a_proxy, capture_output=True, check=False
    ).returncode


def test_the_health_check(start: Start) -> None:
    gateway = start()
    port = gateway.client.base_url.port
    assert port is not None
    assert health_check(port) == 0
    assert gateway.stop() == 0
    assert health_check(port) == 1
