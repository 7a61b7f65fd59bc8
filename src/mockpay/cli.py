"""The command line: parse, call, print."""

import asyncio
import os
import re
import sys
from collections.abc import Coroutine
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError
from cyclopts.config import Env

from mockpay import __version__
from mockpay.errors import StartCancelled, StartupError
from mockpay.settings import ENVIRONMENT_PREFIX, Settings, check
from mockpay.spelling import as_typed, warnings_of

SettingsParameter = Annotated[Settings, Parameter(name="*")]
FileParameter = Annotated[Path | None, Parameter(show_env_var=False)]

app = App(
    name="mockpay",
    version=__version__,
    help="A payment gateway simulator: real states, real webhooks, faults on demand, no money.",
    config=Env(ENVIRONMENT_PREFIX, command=False),
    suppress_keyboard_interrupt=False,
)
audit = App(name="audit", help="The audit trail.")
app.command(audit)
# The receiver's port and host are not the server's: MOCKPAY_PORT must not set them, so it has no environment.
listener = App(name="listen", config=[])
app.command(listener)


@app.command
def serve(*, settings: SettingsParameter = Settings()) -> None:
    """Start everything on this machine: database, migrations, API and delivery worker."""
    from mockpay import serving

    _prepare(settings)
    serving.serve(settings)


@app.command
def api(*, settings: SettingsParameter = Settings()) -> None:
    """Start the API alone, on the database of MOCKPAY_DATABASE_URL."""
    from mockpay import serving

    _prepare(settings)
    serving.serve_api(settings)


@app.command
def worker(*, settings: SettingsParameter = Settings()) -> None:
    """Start a delivery worker alone, on the database of MOCKPAY_DATABASE_URL."""
    from mockpay import serving

    _prepare(settings)
    _run(serving.serve_worker(settings))


@app.command
def migrate(*, settings: SettingsParameter = Settings()) -> None:
    """Bring the schema of the database up to date. Safe to run from many processes at once."""
    from mockpay import database_access

    _prepare(settings)
    with database_access.running_database(settings) as access:
        applied = _run(database_access.migrate_and_check(settings, access))
    print("\n".join(f"applied {name}" for name in applied) or "The database is up to date.")


@audit.command(name="verify")
def audit_verify(
    *, checkpoint: FileParameter = None, key_file: FileParameter = None, settings: SettingsParameter = Settings()
) -> None:
    """Recompute every payment's hash chain. Names each broken entry, and exits with 1 if there is one.

    Parameters
    ----------
    checkpoint
        A file that 'mockpay audit checkpoint' wrote: what it covers must still be there, unchanged.
    key_file
        The file of the key that signed it. In development the one in the data folder if not given.
    """
    from mockpay import database_access, serving
    from mockpay.audit import checkpoint_file

    _prepare(settings)
    signed = checkpoint and checkpoint_file.summary_in(checkpoint, checkpoint_file.checking_key(settings, key_file))
    covered = checkpoint_file.covered_in(checkpoint, signed) if checkpoint and signed else ()
    with database_access.running_database(settings) as access:
        report = _run(serving.verify_audit(access.url, print, covered))
    if signed:
        lost = f"{report.lost} MISSING OR REWRITTEN" if report.lost else "all there"
        print(f"checkpoint of {signed.created_at}: {signed}: {lost}")
    state = f"{report.broken} BROKEN" if report.broken else "intact"
    print(f"{report.payments} payments, {report.entries} audit entries: {state}")
    if not report.is_intact:
        sys.exit(1)


@audit.command(name="checkpoint")
def audit_checkpoint(
    *, file: FileParameter = None, key_file: FileParameter = None, settings: SettingsParameter = Settings()
) -> None:
    """Sign where every payment's hash chain ends now, so that 'mockpay audit verify' finds what is removed later.

    Parameters
    ----------
    file
        A new file to write the checkpoint to. Printed if not given.
    key_file
        The file of the key to sign with, at least 32 characters. In development one is made in the data folder if not
        given; in production it must be.
    """
    from mockpay import database_access, serving
    from mockpay.audit import checkpoint_file
    from mockpay.types import SystemClock

    _prepare(settings)
    key = checkpoint_file.signing_key(settings, key_file)
    target = checkpoint_file.new_file(file) if file else nullcontext(sys.stdout.buffer.write)
    with target as write, database_access.running_database(settings) as access:
        summary = _run(serving.sign_audit(access.url, write, key, SystemClock().now()))
    if file:
        print(f"{file}: {summary}")


@listener.default
def listen(
    *,
    host: str = "127.0.0.1",
    port: int = 4000,
    secret: str | None = None,
    status: int = 200,
) -> None:
    """Receive webhooks, and print each one and whether its signature is valid.

    Parameters
    ----------
    host
        The address to listen on.
    port
        The port to listen on.
    secret
        The tenant's webhook_secret, to check signatures with.
    status
        What to answer. 500 shows the retries.
    """
    from mockpay.webhooks.listener import listen as receive

    if secret is not None and not re.fullmatch("[0-9a-f]{64}", secret):
        raise StartupError("--secret must be the tenant's webhook_secret: 64 hexadecimal characters.")
    _run(receive(host, port, secret, status, lambda text: print(text, flush=True)))


@app.command(name="verify-demo")
def verify_demo() -> None:
    """Show what signature verification accepts and rejects."""
    from rich.console import Console
    from rich.table import Table

    from mockpay.webhooks.verify_demo import BODY, SECRET, cases

    table = Table("case", "signature", "expected", "verification")
    for case in cases():
        expected, accepted = ("accepted" if value else "rejected" for value in (case.expected, case.accepted))
        colour = "green" if case.accepted == case.expected else "bold red"
        table.add_row(case.name, case.signature[:26] or "(empty)", expected, f"[{colour}]{accepted}")
    console = Console()
    console.print(f"body    {BODY.decode()}\nsecret  {SECRET}", markup=False, highlight=False, soft_wrap=True)
    console.print(table)
    if any(case.accepted != case.expected for case in cases()):
        sys.exit(1)


def main() -> None:
    """The entry point. What can't start says why in one sentence, and exits with 1; with 2 if it was typed wrongly."""
    for name, value in list(os.environ.items()):
        if name.startswith(ENVIRONMENT_PREFIX) and not value:
            del os.environ[name]  # "MOCKPAY_X=" in a compose file means: not set
    for warning in warnings_of(os.environ):
        _complain(warning)
    try:
        app(print_error=False, exit_on_error=False)
    except StartCancelled:
        sys.exit(0)
    except StartupError as error:
        _complain(as_typed(str(error), sys.argv[1:]))
        sys.exit(1)
    except CycloptsError as error:
        _complain(_what_is_typed_wrongly(error))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(0)


def _complain(sentence: str) -> None:
    print(f"mockpay: {sentence}", file=sys.stderr)


def _what_is_typed_wrongly(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError):  # they may be the rest of a secret with a space in it
        return "There is a word too many; put a value that has spaces in quotes."
    error.verbose = False
    return " ".join(str(error).split())


def _prepare(settings: Settings) -> None:
    from mockpay.logs import configure_logging

    check(settings)
    configure_logging(json_lines=settings.is_production, level=settings.log_level)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)
