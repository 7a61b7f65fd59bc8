"""The rules of the house that a test can watch: size, and that nothing public goes undocumented."""

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

from mockpay.errors import ApiError
from mockpay.payments.events import NAMES
from mockpay.settings import Settings, environment_name
from mockpay.webhooks import delivery

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])
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
            assert f"`{field.default}`" in row
    named = set(re.findall(r"MOCKPAY_[A-Z_]+", documentation))
    assert named == {environment_name(field.name) for field in fields(Settings)}


def test_every_event_and_error_kind_is_documented() -> None:
    documentation = (ROOT / "docs" / "webhooks.md").read_text()
    kinds = [name for _, name in delivery._ERROR_KINDS] + ["connection_failed", "worker_lost"]
    for name in [*NAMES.values(), *kinds]:
        assert f"`{name}`" in documentation, name


def test_every_decision_is_one_page_in_the_agreed_form() -> None:
    for path in sorted((ROOT / "docs" / "decisions").glob("0*.md")):
        headings = re.findall(r"^## (.+)$", path.read_text(), re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences", "Alternatives"], path.name
