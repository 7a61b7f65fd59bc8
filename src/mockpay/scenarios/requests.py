"""What a tenant may ask of scenarios. Pure."""

from typing import Any, ClassVar, Final

import msgspec

from mockpay.chance import Seed
from mockpay.errors import Fault, InvalidRequest
from mockpay.scenarios.ready import FILES

FILE_LENGTH_MAX: Final = 8_192
"""Of a key with many dots the reader takes a time by its square: of 64 KiB seconds, in which nobody else is served."""


class FileText(str):
    """Of a scenario's file, in TOML."""

    __slots__ = ()
    json_schema: ClassVar[dict[str, Any]] = {"type": "string", "max_length": FILE_LENGTH_MAX}

    @classmethod
    def parse(cls, raw: object) -> "FileText":
        if not isinstance(raw, str) or len(raw) > FILE_LENGTH_MAX:
            raise ValueError(f"must be a string of {FILE_LENGTH_MAX} characters at most")
        return cls(raw)


class ReadyName(str):
    """Of a scenario that comes with MockPay."""

    __slots__ = ()
    json_schema: ClassVar[dict[str, Any]] = {"type": "string", "enum": list(FILES)}

    @classmethod
    def parse(cls, raw: object) -> "ReadyName":
        if not isinstance(raw, str) or raw not in FILES:
            raise ValueError(f"must be one of {', '.join(FILES)}")
        return cls(raw)


class RunScenario(msgspec.Struct, frozen=True):
    """The body of POST /api/scenarios/run: the name of a ready one, or the text of a file."""

    name: ReadyName | None = None
    file: FileText | None = None
    seed: Seed | None = None

    def __post_init__(self) -> None:
        if (self.name is None) == (self.file is None):
            raise InvalidRequest([Fault("name", "or else file: give the name of a ready scenario, or a file's text")])

    @property
    def text(self) -> str:
        """Of the file that it is about."""
        text = self.file if self.name is None else FILES[self.name]
        assert text is not None, "it has one of the two"
        return text
