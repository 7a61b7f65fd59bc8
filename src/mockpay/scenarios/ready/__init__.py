"""The scenarios that come with MockPay, a file each."""

from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType
from typing import Final


def _read() -> dict[str, str]:
    found = [entry for entry in resources.files(__name__).iterdir() if entry.name.endswith(".toml")]
    return {entry.name.removesuffix(".toml"): entry.read_text("utf-8") for entry in found}


FILES: Final[Mapping[str, str]] = MappingProxyType(dict(sorted(_read().items())))
"""By name, which is the file's."""
