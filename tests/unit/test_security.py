"""The lines of docs/security.md that need no server, and that the page itself is true."""

import ast
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

import mockpay
from mockpay.logs import escape
from mockpay.tenants.model import EMAIL_LENGTH_MAX, Email
from mockpay.webhooks.address import is_public
from tests.audit_dependencies import Audit, read
from tests.support.logs import captured_logs

ROOT = Path(__file__).parents[2]
SOURCES = sorted(Path(mockpay.__file__).parent.rglob("*.py"))
SECRET = re.compile(r"\b(\w*(admin_key|api_key|signature|secret|token|password|digest|api_key_sha256))\b")
HARMLESS = {"None", "''", "msgspec.UNSET"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_secret_is_compared_in_a_time_that_tells(path: Path) -> None:
    """== ends at the first difference; hmac.compare_digest does not. Keys of tenants are looked up by their SHA-256."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Compare) or not any(isinstance(each, ast.Eq | ast.NotEq) for each in node.ops):
            continue
        sides = {ast.unparse(side) for side in (node.left, *node.comparators)}
        assert sides & HARMLESS or not any(map(SECRET.search, sides)), f"{path.name}:{node.lineno}"


@pytest.mark.parametrize(("module", "functions"), [
    ("webhooks/signing.py", {"verify", "verify_standard"}), ("tenants/model.py", {"is_admin_key"}),
])  # fmt: skip
def test_signatures_and_the_admin_key_are_compared_in_constant_time(module: str, functions: set[str]) -> None:
    tree = ast.parse((ROOT / "src" / "mockpay" / module).read_text())
    found = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and "compare_digest" in ast.unparse(node)
    }
    assert found == functions


@pytest.mark.parametrize("address", ["::ffff:0:127.0.0.1", "4000::1", "3fff::1", "5f00::1", "100::1", "2001:db8::1"])
def test_of_ipv6_only_what_is_global_is_public(address: str) -> None:
    assert not is_public(address)


def test_a_long_address_is_refused_before_it_is_looked_through() -> None:
    with pytest.raises(ValueError, match="at most 254"):
        Email.parse("a@" + "b." * 100_000)
    local = "a" * 64
    assert Email.parse(f"{local}@{'b' * 63}.{'c' * 63}.{'d' * (EMAIL_LENGTH_MAX - 64 - 1 - 2 * 64 - 4)}.com")


def test_what_is_readable_stays_as_it_is() -> None:
    event = {"event": "zahlung für käfer 😀", "path": "/\x1b[2J\n\x85", "status": 200}
    assert escape(None, "info", event) == {
        "event": "zahlung für käfer 😀", "path": "/\\x1b[2J\\n\\x85", "status": 200,
    }  # fmt: skip


def test_lines_of_libraries_are_escaped_too() -> None:
    with captured_logs(json_lines=False) as output:
        logging.getLogger("library").warning("line\nforged \x1b[2J")
    assert output.getvalue().count("\n") == 1
    assert "\x1b[2J" not in output.getvalue()


@pytest.mark.parametrize("name", ["security.md", "reliability.md"])
def test_the_page_names_tests_that_there_are(name: str) -> None:
    page = (ROOT / "docs" / name).read_text()
    named = re.findall(r"`(test_\w+\.py)`((?:,? `test_\w+`)+)", page)
    assert len(named) >= 10
    for file, functions in named:
        text = "".join(path.read_text() for path in (ROOT / "tests").rglob(file))
        for function in re.findall(r"`(test_\w+)`", functions):
            assert re.search(rf"def {function}\(", text), f"{file} has no {function}"


def report(*dependencies: Mapping[str, object]) -> str:
    return json.dumps({"dependencies": dependencies, "fixes": []})


SAFE = {"name": "safe", "version": "1", "vulns": []}
HOLE = {
    "name": "old",
    "version": "2",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"], "aliases": [], "description": "x"}],
}
SKIPPED = {"name": "lost", "skip_reason": "Dependency not found on PyPI and could not be audited: lost (1)"}


def test_an_audit_fails_for_a_vulnerability() -> None:
    assert read("run.txt", report(SAFE), "") == Audit(["run.txt: 1 packages, no known vulnerability"], failed=False)
    for found in ([HOLE], [SAFE, HOLE], [SKIPPED, HOLE]):
        assert read("run.txt", report(*found), "Found 1") == Audit(
            ["run.txt: old 2 has PYSEC-1; mended in 3"], failed=True
        )
    assert read("run.txt", "", "usage: pip-audit").failed
    assert read("run.txt", "{}", "").failed


@pytest.mark.parametrize(("output", "errors"), [
    (report(SKIPPED), ""), (report(SAFE, SKIPPED), ""), (report(), ""), ("", "requests.exceptions.ConnectionError: HTTPSConnectionPool"),
    ("", "ERROR:pip_audit._cli:Could not connect to PyPI's vulnerability feed"),
])  # fmt: skip
def test_an_audit_that_did_not_take_place_says_so(output: str, errors: str) -> None:
    """Which pip-audit itself does not, where the index has no advisories: it finds no vulnerability in nothing."""
    found = read("run.txt", output, errors)
    assert not found.failed
    assert "!! run.txt WAS NOT AUDITED" in found.lines[0]
