"""The bounded part of what `make soak` does for twenty minutes."""

from pathlib import Path

from tests.crash.run import run
from tests.support.servers import scratch_folder

SEED = 20261125


def test_nothing_is_lost_and_nothing_is_done_twice_by_kills_at_any_moment() -> None:
    with scratch_folder() as folder:
        outcome = run(Path(folder), seed=SEED, kills=10, seconds=12)
    assert outcome.problems == [], outcome.text()
    assert sum(outcome.kills.values()) == 10
    assert all(outcome.kills.values()), "each part was killed"
    assert outcome.findings.checked["answers"] > 100
    assert outcome.findings.checked["dead ones"] > 0
    assert outcome.findings.checked["flagged ones with a webhook"] > 0
    assert outcome.findings.checked["changes of rules"] > 10
