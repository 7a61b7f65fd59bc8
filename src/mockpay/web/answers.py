"""Answers from bytes that are encoded already, so that what is stored and what is sent are the same."""

from typing import Any

from litestar import Response


def json_response(body: bytes, status: int, headers: dict[str, str] | None = None) -> Response[Any]:
    return Response(body, status_code=status, media_type="application/json", headers=headers)
