"""The bounded part of what `make fuzz` does for minutes: each role on its own routes."""

import pytest

from tests.fuzz.run import Role, fuzz, gateway_to_fuzz
from tests.support.servers import scratch_folder

SEED = 20260131
EXAMPLES = 10


@pytest.mark.parametrize(("role", "routes"), [("tenant", "--exclude-path-regex"), ("admin", "--include-path-regex")])
def test_the_api_keeps_to_its_document(role: Role, routes: str) -> None:
    with scratch_folder() as folder, gateway_to_fuzz(folder) as gateway:
        outcome = fuzz(gateway, folder, role, routes, "^/api/admin/", "--max-examples", str(EXAMPLES), seed=SEED)
    assert not outcome.problems, "\n".join(outcome.problems)
    assert outcome.requests > 500
