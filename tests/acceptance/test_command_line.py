"""What the program says of what was typed, on standard error and in one sentence."""

from pathlib import Path

import pytest

from tests.support.processes import run


@pytest.mark.parametrize(("arguments", "settings", "said", "code"), [
    (["serve", "--admin-key", "hunter2"], {}, "--admin-key must be at least 16", 1),
    (["serve"], {"MOCKPAY_ADMIN_KEY": "hunter2"}, "MOCKPAY_ADMIN_KEY must be at least 16", 1),
    (["serve", "--admin-key=hunter2"], {"MOCKPAY_ADMIN_KEY": "k" * 16}, "--admin-key must be at least 16", 1),
    (["migrate", "--database-url", "mysql://u:hunter2@h/d"], {}, "--database-url must be a URL like", 1),
    (["serve", "--port", "abc"], {"MOCKPAY_PORT": "3000"}, "Invalid value for --port", 2),
    (["serve"], {"MOCKPAY_PORT": "abc"}, "Invalid value for MOCKPAY_PORT", 2),
    (["worker"], {"MOCKPAY_UNLIMITED": "perhaps"}, "Invalid value for MOCKPAY_UNLIMITED", 2),
    (["serve", "--admin-kye=hunter2"], {}, "Did you mean --admin-key?", 2),
    (["serve", "--admin-key", "one", "hunter2"], {}, "a word too many", 2),
    (["serve", "--port", "1", "--host", "nowhere.invalid"], {}, "--host 'nowhere.invalid' is no address", 1),
])  # fmt: skip
def test_an_error_is_one_sentence_that_names_what_was_typed(
    arguments: list[str], settings: dict[str, str], said: str, code: int, data_dir: Path
) -> None:
    done = run(*arguments, **settings, MOCKPAY_DATA_DIR=str(data_dir))
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("mockpay: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert "hunter2" not in done.stderr
    assert not data_dir.exists()


@pytest.mark.parametrize("arguments", [["verify-demo"], ["--version"], ["api"]])
def test_a_misspelt_setting_is_warned_of_by_every_command(arguments: list[str]) -> None:
    done = run(*arguments, MOCKPAY_DATABSE_URL="hunter2", MOCKPAY_LOG_LEVEL="error")
    assert (
        "mockpay: MOCKPAY_DATABSE_URL is no setting of MockPay and is ignored; did you mean MOCKPAY_DATABASE_URL?\n"
    ) in done.stderr
    assert "hunter2" not in done.stderr
    assert done.returncode == (1 if arguments == ["api"] else 0)
