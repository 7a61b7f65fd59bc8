"""python -m tests.crash [--minutes 20] [--kills 200] [--seed N]

Prints what was checked, and exits with 1 if the books do not agree. A seed makes the same choices again.
"""

import argparse
import random
import sys

from mockpay.logs import configure_logging
from tests.crash.run import run
from tests.support.servers import scratch_folder


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.crash")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    configure_logging(json_lines=False, level="error")
    print(f"seed {options.seed}", flush=True)
    with scratch_folder() as folder:
        outcome = run(folder, seed=options.seed, kills=options.kills, seconds=options.minutes * 60, say=_say)
    print(outcome.text())
    for problem in outcome.problems[:100]:
        print(f"  {problem}")
    sys.exit(1 if outcome.problems else 0)


def _say(text: str) -> None:
    print(text, flush=True)


main()
