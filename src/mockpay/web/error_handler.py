"""The one place where an exception becomes an answer."""

from http import HTTPStatus
from typing import Any, Final

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException, ValidationException

from mockpay import errors
from mockpay.exact_json import encode
from mockpay.web.answers import json_response
from mockpay.web.openapi import ErrorBody
from mockpay.web.request_log import request_id_of

log = structlog.stdlib.get_logger("mockpay.http")

_BY_STATUS: Final[dict[int, type[errors.ApiError]]] = {
    413: errors.BodyTooLarge,
    415: errors.UnsupportedMediaType,
}


_CLIENT_GONE: Final = "client disconnected prematurely"
"""What the framework says of it, as of a mistake of ours."""


def handle_error(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """Litestar calls this for every exception that a request raises, its own included."""
    answer, body = answer_to(error, request_id_of(request.scope))
    return json_response(body, answer.status, answer.headers)


def answer_to(error: Exception, request_id: str) -> tuple[errors.ApiError, bytes]:
    """What the client gets, and its body. What is no fault of the client's is logged."""
    answer = as_api_error(error)
    if isinstance(answer, errors.InternalError):
        log.error("unexpected error", exc_info=error)
    elif isinstance(answer, errors.DatabaseUnavailable):
        log.warning("database unavailable", cause=repr(error.__cause__ or error))
    return answer, error_body(answer, request_id)


def error_body(error: errors.ApiError, request_id: str) -> bytes:
    body = ErrorBody(error.sentence, error.code, request_id)
    if error.details:
        body = msgspec.structs.replace(body, details=list(error.details))
    return encode(body)


def as_api_error(error: Exception) -> errors.ApiError:
    """Translate what the framework raised; anything unknown is our mistake and tells the client nothing."""
    match error:
        case errors.ApiError():
            return error
        case MethodNotAllowedException():
            allowed = {name.lower(): value for name, value in (error.headers or {}).items()}
            return errors.MethodNotAllowed(headers={"Allow": allowed.get("allow", "")})
        case NotFoundException():
            return errors.RouteNotFound()
        case HTTPException() if error.status_code in _BY_STATUS:
            return _BY_STATUS[error.status_code]()
        case ValidationException() if "'data'" in str(error.extra):
            return errors.MalformedJson("The body is empty; send a JSON object.")
        case HTTPException() if error.detail == _CLIENT_GONE:  # in the middle of its body: nobody sees this answer
            return errors.MalformedJson("The connection ended before the body did.")
        case HTTPException() if error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
            return errors.InvalidRequest([errors.Fault("request", error.detail or "is malformed")])
        case _:
            return errors.InternalError()
