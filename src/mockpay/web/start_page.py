"""Says at the root where things are: to a program in JSON, to a person as a page."""

from html import escape
from typing import Any, Final

import msgspec
from litestar import Request, Response, get

from mockpay import __version__
from mockpay.exact_json import encode
from mockpay.web.answers import json_response

_VARIES: Final = {"Vary": "Accept"}
_NAMES: Final = {
    "docs": "every route, to read and to try",
    "openapi": "the OpenAPI document",
    "register": "POST: make a tenant, and get its key",
    "health": "is the process up?",
    "ready": "is the database reachable?",
    "metrics": "figures for Prometheus",
}
_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>MockPay</title>
<link rel="icon" href="data:,">
</head>
<body>
<h1>MockPay {version}</h1>
<p>A payment gateway simulator: real states, real webhooks, faults on demand, no money.</p>
<ul>
{places}
</ul>
</body>
</html>
"""


class PlacesView(msgspec.Struct, frozen=True):
    """Paths of this server."""

    name: str
    version: str
    docs: str
    openapi: str
    register: str
    health: str
    ready: str
    metrics: str


_PLACES: Final = PlacesView(
    name="MockPay",
    version=__version__,
    docs="/docs",
    openapi="/openapi.json",
    register="/api/auth/register",
    health="/health",
    ready="/ready",
    metrics="/metrics",
)


@get("/", tags=["operations"], summary="Where things are", sync_to_thread=False)
def places(request: Request[Any, Any, Any]) -> Response[PlacesView]:
    """Answers in JSON, or with a short page to who prefers `text/html`."""
    if request.accept.best_match(["application/json", "text/html"], default="application/json") == "text/html":
        return Response(_page(), media_type="text/html", headers=_VARIES)  # type: ignore[arg-type]  # documented apart
    return json_response(encode(_PLACES), 200, _VARIES)


ROUTES = [places]


def _page() -> str:
    items = [
        f'<li><a href="{getattr(_PLACES, name)}">{getattr(_PLACES, name)}</a>: {escape(what)}</li>'
        for name, what in _NAMES.items()
    ]
    return _PAGE.format(version=escape(__version__), places="\n".join(items))
