"""The OpenAPI document, and the page that shows it. The page's files come with the program: no internet is needed."""

import importlib.util
from pathlib import Path
from typing import Any, Final

from litestar import MediaType, Request, Response, Router, get
from litestar.params import FromPath

from mockpay.errors import RouteNotFound
from mockpay.exact_json import encode
from mockpay.web.answers import json_response
from mockpay.web.document import complete

ASSETS: Final = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
_CACHED: Final = {"Cache-Control": "public, max-age=86400"}

_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>MockPay API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script>
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
</script>
</body>
</html>
"""


class NoPages(Router):
    """Litestar would add pages of its own below /docs; ours are routes like any other, with our errors."""

    def register(self, value: Any) -> list[Any]:
        return []


@get("/openapi.json", tags=["operations"], summary="This document", sync_to_thread=False)
def openapi_document(request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
    state = request.app.state
    if "openapi_json" not in state:  # the same for as long as the process lives, and slow to make
        state.openapi_json = encode(complete(request.app.openapi_schema.to_schema()))
    return json_response(state.openapi_json, 200)


@get("/docs", tags=["operations"], summary="This document, to read and to try", media_type=MediaType.HTML)
async def docs_page() -> str:
    return _PAGE


@get("/docs/{name:str}", include_in_schema=False, sync_to_thread=True)
def docs_asset(name: FromPath[str]) -> Response[bytes]:
    if name not in ASSETS:
        raise RouteNotFound
    return Response((_assets_folder() / name).read_bytes(), media_type=ASSETS[name], headers=_CACHED)


ROUTES = [openapi_document, docs_page, docs_asset]


def _assets_folder() -> Path:
    """Of the package swagger-ui-py, which is not imported: its code is for other frameworks."""
    found = importlib.util.find_spec("swagger_ui")
    assert found is not None, "a dependency"
    assert found.submodule_search_locations is not None
    return Path(found.submodule_search_locations[0]) / "static"
