"""python -m tests.fuzz [--minutes 10] [--seed N]

Each role over the whole API, with its own routes and the other's. Prints what was found, and exits with 1 if that is
something. A seed makes the same requests again, as far as the time goes.
"""

import argparse
import random
import sys

from tests.fuzz.run import ROLES, fuzz, gateway_to_fuzz
from tests.support.servers import scratch_folder

EXAMPLES = 100


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    limits = ("--max-examples", str(EXAMPLES), "--max-time", str(max(1, round(options.minutes * 60 / len(ROLES)))))
    failed = False
    for role in ROLES:
        with scratch_folder() as folder, gateway_to_fuzz(folder) as gateway:
            outcome = fuzz(gateway, folder, role, *limits, "--continue-on-failure", seed=options.seed)
        succeeded = len(outcome.expected & outcome.succeeded)
        for problem in outcome.problems:
            print(problem)
        print(f"{role}: {outcome.requests} requests, {succeeded} of {len(outcome.expected)} operations with a 2xx, "
              f"{len(outcome.problems)} problems", flush=True)  # fmt: skip
        failed |= bool(outcome.problems)
    sys.exit(1 if failed else 0)


main()
