"""The rules of the house that a test can watch: size, and that nothing public goes undocumented."""

import ast
import re
import runpy
import tempfile
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from mockpay.app import create_litestar
from mockpay.errors import ApiError
from mockpay.events import Event
from mockpay.faults.model import Effect
from mockpay.faults.rules import Operation
from mockpay.payments.declines import DECLINES
from mockpay.payments.events import NAMES
from mockpay.payments.magic_values import AMOUNTS, PAYMENT_METHODS
from mockpay.settings import Settings, environment_name
from mockpay.webhooks import delivery
from mockpay.webhooks.signing import sign_standard, sign_with_all
from mockpay.webhooks.tampering import Tampering

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])
EXECUTING = {"execute", "executemany", "fetch", "fetchrow", "fetchval", "cursor", "prepare"}
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 50


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < FILE_LINES_MAX
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines < FUNCTION_LINES_MAX, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("*.py")), ids=lambda path: path.stem)
def test_no_sql_is_executed_that_is_not_such_a_constant(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in EXECUTING):
            continue
        if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "connection"):
            continue
        argument = node.args[0]
        is_constant = isinstance(argument, ast.Name) and argument.id.endswith("_SQL")
        is_migration = path.name == "migrate.py" and ast.unparse(argument) == "migration.sql"
        assert is_constant or is_migration, f"{path.name}:{node.lineno}"


def all_errors(kind: type[ApiError] = ApiError) -> list[type[ApiError]]:
    found = [each for child in kind.__subclasses__() for each in [child, *all_errors(child)]]
    return [each for each in found if hasattr(each, "code")]


def test_every_error_has_its_own_code_and_is_documented() -> None:
    codes = [error.code for error in all_errors()]
    assert len(codes) == len(set(codes))
    documentation = (ROOT / "docs" / "errors.md").read_text()
    for error in all_errors():
        assert re.search(rf"`{error.code}`.*{error.status}|{error.status}.*`{error.code}`", documentation), error.code


def test_every_setting_is_documented_with_its_default() -> None:
    documentation = (ROOT / "docs" / "settings.md").read_text()
    for field in fields(Settings):
        [row] = [line for line in documentation.splitlines() if line.startswith(f"| `{environment_name(field.name)}`")]
        assert f"`--{field.name.replace('_', '-')}`" in row
        if isinstance(field.default, int | float | str):
            written = str(field.default).lower() if isinstance(field.default, bool) else field.default
            assert (f"`{written}`" if written != "" else "| none |") in row
    named = set(re.findall(r"MOCKPAY_[A-Z_]+", documentation))
    assert named == {environment_name(field.name) for field in fields(Settings)}


def test_every_event_and_error_kind_is_documented() -> None:
    documentation = (ROOT / "docs" / "webhooks.md").read_text()
    kinds = [name for _, name in delivery._ERROR_KINDS] + ["connection_failed", "worker_lost", delivery.DROPPED.error]
    for name in [*NAMES.values(), *kinds]:
        assert f"`{name}`" in documentation, name


def test_every_route_is_documented_and_no_other() -> None:
    document = create_litestar(Settings(), "postgresql://nowhere/", with_worker=False).openapi_schema.to_schema()
    routes = {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}
    named = re.findall(
        r"^\| `((?:GET|POST|PATCH|DELETE) /\S*)` \|", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE
    )
    assert sorted(named) == sorted(routes)


def test_every_failure_and_test_value_is_documented() -> None:
    documentation = (ROOT / "docs" / "outcomes.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (\w+) \|$", documentation, re.MULTILINE)
    assert rows == [(code, decline.message, decline.retry) for code, decline in DECLINES.items()]
    for value, failure in PAYMENT_METHODS.items():
        if value.isdigit():
            assert f"| `{value}` | {f'failed: `{failure}`' if failure else 'success'} |" in documentation
    assert f"| {min(AMOUNTS)} | success |" in documentation
    assert f"| {min(AMOUNTS) + 1} to {max(AMOUNTS)} | failed, with the codes" in documentation


def test_every_fault_is_documented() -> None:
    documentation = (ROOT / "docs" / "faults.md").read_text()
    for effect in [*Effect, *Tampering]:
        assert re.search(rf"^\| `{effect}[`;]", documentation, re.MULTILINE), effect
    for name in [*Operation, *Event]:
        assert f"`{name}`" in documentation, name


def test_every_metric_is_documented() -> None:
    documentation = (ROOT / "docs" / "operations.md").read_text()
    for path in ("operations.py", "telemetry.py"):
        for name in re.findall(r'"(mockpay_\w+)"', (ROOT / "src" / "mockpay" / path).read_text()):
            assert re.search(rf"`{name}(_total)?`", documentation), name


def python_of_the_docs() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "webhooks.md").read_text(), re.DOTALL)


def test_the_docs_verify_webhooks_by_hand_and_by_package() -> None:
    """Of the current secret, of one that is rotated out, and of nobody else."""
    by_hand, by_package = (runpy.run_path(path)["is_from_mockpay"] for path in written(python_of_the_docs()))
    old, new, wrong = "ab" * 32, "cd" * 32, "ef" * 32
    body, now = b'{"a":1}', int(time.time())
    for secrets, accepted in (([new], {new}), ([new, old], {new, old})):
        headers = {
            "webhook-id": "id", "webhook-timestamp": str(now),
            "webhook-signature": sign_standard(body, "id", now, secrets),
        }  # fmt: skip
        for secret in (old, new, wrong):
            assert by_hand(body, sign_with_all(body, secrets), secret) is (secret in accepted)
            assert by_package(body, headers, secret) is (secret in accepted)


def written(sources: list[str]) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        for number, source in enumerate(sources):
            path = Path(folder) / f"{number}.py"
            path.write_text(source)
            yield str(path)


def test_every_decision_is_one_page_in_the_agreed_form() -> None:
    for path in sorted((ROOT / "docs" / "decisions").glob("0*.md")):
        headings = re.findall(r"^## (.+)$", path.read_text(), re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences", "Alternatives"], path.name
