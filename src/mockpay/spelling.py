"""Reads what was typed at the start: warns of variables that are no settings, and puts errors in the typist's words."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import Field, fields
from difflib import get_close_matches
from typing import Any, Final

from cyclopts import Parameter

from mockpay.settings import ENVIRONMENT_PREFIX, Settings, environment_name

_ALSO_READ: Final = frozenset({"MOCKPAY_CHECKPOINT", "MOCKPAY_FILE", "MOCKPAY_KEY_FILE"})
"""No settings, but parameters of `mockpay audit`, which reads the environment as every command does."""
_KUBERNETES: Final = re.compile(
    r"MOCKPAY(_\w+)?_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)"
)
"""What a cluster tells its containers of a service whose name begins with mockpay."""
_NAME: Final = re.compile(rf"\b{ENVIRONMENT_PREFIX}[A-Z_]+\b")


def warnings_of(environment: Iterable[str]) -> list[str]:
    """Returns a sentence for each variable that looks like a setting and is none, with the nearest that is one."""
    known = {_variable(flag) for flag in _settings_by_flag()} | _ALSO_READ
    return [
        f"{name} is no setting of MockPay and is ignored; {_nearest(name)}"
        for name in sorted(environment)
        if name.startswith(ENVIRONMENT_PREFIX) and name not in known and not _KUBERNETES.fullmatch(name)
    ]


def as_typed(sentence: str, arguments: Sequence[str]) -> str:
    """Returns the sentence with the flags that were typed in place of the variables that it names.

    A flag wins over the environment, so it is the flag that has to be mended.
    """
    settings = _settings_by_flag()
    flags = [argument.partition("=")[0].replace("_", "-") for argument in arguments]
    typed = {settings[flag]: flag for flag in flags if flag in settings}
    return _NAME.sub(lambda found: typed.get(found[0], found[0]), sentence)


def _nearest(name: str) -> str:
    """Compares without what all have in common, which would make any two of them near."""
    settings = {setting.removeprefix(ENVIRONMENT_PREFIX) for setting in _settings_by_flag().values()}
    near = get_close_matches(name.removeprefix(ENVIRONMENT_PREFIX), settings, n=1)
    return f"did you mean {ENVIRONMENT_PREFIX}{near[0]}?" if near else "docs/settings.md lists all there are."


def _settings_by_flag() -> dict[str, str]:
    """Returns the variable of the setting that each flag sets; some have a short flag too."""
    return {flag: environment_name(field.name) for field in fields(Settings) for flag in _flags(field)}


def _flags(field: "Field[Any]") -> list[str]:
    parameters = [each for each in getattr(field.type, "__metadata__", ()) if isinstance(each, Parameter)]
    aliases = [alias for parameter in parameters for alias in parameter.alias or ()]
    return [f"--{field.name.replace('_', '-')}", *aliases]


def _variable(flag: str) -> str:
    return environment_name(flag.removeprefix("--").replace("-", "_"))
