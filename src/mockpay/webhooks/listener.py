"""`mockpay listen`: a receiver to point a payment at. It prints each webhook, and whether its signatures hold."""

import asyncio
import signal
from collections.abc import Callable, Mapping

import msgspec
from aiohttp import web

from mockpay.errors import StartupError
from mockpay.webhooks.signing import SIGNATURE_HEADER, verify, verify_standard

Print = Callable[[str], None]


async def listen(host: str, port: int, secret: str | None, status: int, show: Print) -> None:
    """Until a signal. Raises StartupError if the port can't be had."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    async def receive(request: web.Request) -> web.Response:
        body = await request.read()
        try:
            show(describe(request.method, request.path, request.headers, body, secret))
        except BrokenPipeError:  # nobody reads any more, as after `mockpay listen | head`
            stop.set()
        return web.Response(status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    try:
        await site.start()
    except OSError as error:
        raise StartupError(
            f"Can't listen on port {port} of {host}: {error.strerror}; choose another with --port."
        ) from error
    show(f"Listening on http://{host}:{port}/ and answering {status}; Ctrl-C stops it.")
    await stop.wait()
    await runner.cleanup()


def describe(method: str, path: str, headers: Mapping[str, str], body: bytes, secret: str | None) -> str:
    """What is shown of one request."""
    return "\n".join(
        [
            f"{method} {_printable(path)}  {_printable(headers.get('X-MockPay-Event', 'no X-MockPay-Event'))}"
            f"  attempt {_printable(headers.get('X-MockPay-Attempt', '?'))}",
            f"  X-MockPay-Signature  {_verdict(headers, body, secret, _own_holds)}",
            f"  webhook-signature    {_verdict(headers, body, secret, _standard_holds)}",
            _pretty(body),
            "",
        ]
    )


def _verdict(
    headers: Mapping[str, str], body: bytes, secret: str | None, holds: Callable[[Mapping[str, str], bytes, str], bool]
) -> str:
    if secret is None:
        return "not checked: give the tenant's webhook secret with --secret"
    return "VALID" if holds(headers, body, secret) else "INVALID"


def _own_holds(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    return verify(body, headers.get(SIGNATURE_HEADER, ""), secret)


def _standard_holds(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    timestamp = headers.get("webhook-timestamp", "")
    if not (timestamp.isascii() and timestamp.isdigit()):
        return False
    return verify_standard(
        body, headers.get("webhook-id", ""), int(timestamp), headers.get("webhook-signature", ""), secret
    )


def _pretty(body: bytes) -> str:
    try:
        text = msgspec.json.format(body, indent=2).decode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = body.decode(errors="replace")
    return "\n".join("  " + _printable(line) for line in text.splitlines())


def _printable(text: str) -> str:
    """No escape sequence of a stranger reaches the terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)
