"""Ask pip-audit whether a version that is pinned has a known vulnerability. A script of `make check`.

It fails for a vulnerability, and for whatever it does not understand. Where the advisories can't be reached it does
not fail, since that says nothing of the code; but it says loudly that nothing was audited. pip-audit itself would be
content: a mirror of the package index that has no advisories answers "not found", which it takes for a package that is
nobody's, passes over, and ends with "No known vulnerabilities found".
"""

import subprocess
import sys
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[1]
PINNED = ("constraints/run.txt", "constraints/dev.txt")
TIMEOUT_SECONDS = 300
OUT_OF_REACH = (
    "ConnectionError",
    "Could not connect",
    "ConnectTimeout",
    "ReadTimeout",
    "timed out",
    "Max retries exceeded",
)
"""What pip-audit says, or the library beneath it, where there is no way to the advisories."""


class Vulnerability(msgspec.Struct, frozen=True):
    id: str
    fix_versions: list[str] = []


class Dependency(msgspec.Struct, frozen=True):
    """`skip_reason` is there in place of the rest, where it was not looked up."""

    name: str
    version: str = ""
    vulns: list[Vulnerability] = []
    skip_reason: str | None = None


class Report(msgspec.Struct, frozen=True):
    """What pip-audit prints."""

    dependencies: list[Dependency]


class Audit(msgspec.Struct, frozen=True):
    """What comes of a report: lines for a person, and whether it is a failure."""

    lines: list[str]
    failed: bool


def read(name: str, output: str, errors: str) -> Audit:
    """Of one file, from what pip-audit printed. Pure."""
    try:
        found = msgspec.json.decode(output, type=Report).dependencies
    except msgspec.DecodeError:
        if any(sign in errors for sign in OUT_OF_REACH):
            return Audit([not_audited(name, "the advisories can't be reached")], failed=False)
        return Audit([f"{name}: pip-audit did not do its work:", errors.strip()], failed=True)
    vulnerable = [line for each in found for line in _vulnerabilities(each)]
    skipped = [each.name for each in found if each.skip_reason is not None]
    if vulnerable:
        return Audit([f"{name}: {line}" for line in vulnerable], failed=True)
    if skipped or not found:
        what = f"{len(skipped)} of {len(found)} packages were not found among the advisories"
        return Audit([not_audited(name, what)], failed=False)
    return Audit([f"{name}: {len(found)} packages, no known vulnerability"], failed=False)


def not_audited(name: str, why: str) -> str:
    bar = "!" * 100
    return f"{bar}\n!! {name} WAS NOT AUDITED: {why}. Run 'make check' where they can be.\n{bar}"


def _vulnerabilities(found: Dependency) -> list[str]:
    return [
        f"{found.name} {found.version} has {each.id}; mended in {', '.join(each.fix_versions) or 'no version yet'}"
        for each in found.vulns
    ]


def audit(name: str) -> Audit:
    command = [
        str(Path(sys.executable).with_name("pip-audit")), "--requirement", name, "--require-hashes", "--disable-pip",
        "--format", "json", "--progress-spinner", "off", "--timeout", "10",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        return Audit([not_audited(name, f"the advisories did not answer in {TIMEOUT_SECONDS} s")], failed=False)
    return read(name, done.stdout, done.stderr)


def main() -> None:
    audits = [audit(name) for name in PINNED]
    print("\n".join(line for each in audits for line in each.lines), flush=True)
    sys.exit(any(each.failed for each in audits))


if __name__ == "__main__":
    main()
