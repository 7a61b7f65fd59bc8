"""What the program logs, as it would stand on standard error."""

import contextlib
import io
import logging
from collections.abc import Iterator

from mockpay.logs import configure_logging


@contextlib.contextmanager
def captured_logs(*, json_lines: bool) -> Iterator[io.StringIO]:
    """At the level debug: the most that can be seen."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    output = io.StringIO()
    with contextlib.redirect_stderr(output):
        configure_logging(json_lines=json_lines, level="debug")
    try:
        yield output
    finally:
        configure_logging(json_lines=False, level="error")
        root.handlers[:], root.level = before
