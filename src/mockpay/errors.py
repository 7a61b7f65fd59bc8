"""The tree of errors. Each leaf has a stable `code` that clients may branch on, and an HTTP status.

MockPayError
├── StartupError              the program can't start; its text is the one sentence the user sees
│   └── StartCancelled        a signal came first
└── ApiError                  becomes an HTTP answer
    ├── InvalidRequest        400, with every fault found
    ├── MalformedHttp         400
    ├── MalformedJson         400
    ├── IdempotencyKeyMissing 400
    ├── Unauthorized          401
    ├── Forbidden             403
    ├── FaultsOff             403
    ├── NotFound              404
    ├── RouteNotFound         404
    ├── MethodNotAllowed      405
    ├── RequestTimeout        408
    ├── InvalidTransition     409
    ├── EmailTaken            409
    ├── NotReplayable         409
    ├── BodyTooLarge          413
    ├── UnsupportedMediaType  415
    ├── IdempotencyKeyReused  422
    ├── RateLimited           429
    ├── TooManyHeld           429
    ├── HeadTooLarge          431
    ├── InternalError         500
    └── DatabaseUnavailable   503
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec


class MockPayError(Exception):
    """Root of everything MockPay raises on purpose."""


class StartupError(MockPayError):
    """The program can't start, or can't go on. The text says what to do about it."""


class DatabaseUnreachable(StartupError):
    """There is no connection to it now. Where it is being started again, there will be one soon."""


class StartCancelled(StartupError):
    """The user asked to stop before the start was over. Not a failure."""


class Fault(msgspec.Struct, frozen=True):
    """One thing wrong with a request: the field as the client spelled it, and how to put it right."""

    field: str
    message: str


class ApiError(MockPayError):
    """Raising one rolls the request's transaction back and answers with its status and code."""

    status: int
    code: str
    summary: ClassVar[str]

    def __init__(self, sentence: str | None = None, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence or self.summary)
        self.sentence = sentence or self.summary
        self.headers = dict(headers or {})
        self.details: Sequence[Fault] = ()


class InvalidRequest(ApiError):
    status = 400
    code = "invalid_request"
    summary = "The request is invalid; see details."

    def __init__(self, faults: Sequence[Fault]) -> None:
        named = "; ".join(f"{fault.field}: {fault.message}" for fault in faults)
        super().__init__(f"The request is invalid: {named}")
        self.details = tuple(faults)


class MalformedHttp(ApiError):
    status = 400
    code = "malformed_http"
    summary = "This is not HTTP/1.1, or two of its headers contradict each other."


class MalformedJson(ApiError):
    status = 400
    code = "malformed_json"
    summary = "The body is not valid UTF-8 JSON."


class IdempotencyKeyMissing(ApiError):
    status = 400
    code = "idempotency_key_missing"
    summary = (
        "This request needs an Idempotency-Key header: a value of your own, such as a UUID, "
        "that you repeat when you retry, so that a retry never charges twice."
    )


class Unauthorized(ApiError):
    status = 401
    code = "unauthorized"
    summary = "Send your API key as 'Authorization: Bearer <api_key>'; POST /api/auth/register gives you one."

    def __init__(self, sentence: str | None = None) -> None:
        super().__init__(sentence, headers={"WWW-Authenticate": "Bearer"})


class Forbidden(ApiError):
    status = 403
    code = "forbidden"
    summary = "This is a tenant's API key; the admin routes need the admin key."


class FaultsOff(ApiError):
    status = 403
    code = "faults_off"
    summary = "Faults are off on this server, and nothing was done. Whoever runs it turns them on by MOCKPAY_FAULTS=on."


class NotFound(ApiError):
    status = 404
    code = "not_found"
    summary = "There is no such thing, or it is another tenant's."


class RouteNotFound(ApiError):
    status = 404
    code = "route_not_found"
    summary = "There is no such route; GET /openapi.json lists them all."


class MethodNotAllowed(ApiError):
    status = 405
    code = "method_not_allowed"
    summary = "This route does not answer this method; the Allow header lists those that it does."


class RequestTimeout(ApiError):
    status = 408
    code = "request_timeout"
    summary = "The request did not come whole in time. Nothing was done."


class InvalidTransition(ApiError):
    status = 409
    code = "invalid_transition"
    summary = "The payment's state does not allow this."


class EmailTaken(ApiError):
    status = 409
    code = "email_taken"
    summary = "A tenant with this e-mail address is registered already."


class NotReplayable(ApiError):
    status = 409
    code = "not_replayable"
    summary = "This delivery can't be replayed as it is now."


class BodyTooLarge(ApiError):
    status = 413
    code = "body_too_large"
    summary = "The body is larger than 256 KiB."


class UnsupportedMediaType(ApiError):
    status = 415
    code = "unsupported_media_type"
    summary = "Send the body as JSON, with 'Content-Type: application/json'."


class IdempotencyKeyReused(ApiError):
    status = 422
    code = "idempotency_key_reused"
    summary = (
        "This Idempotency-Key was used for another request. "
        "Repeat a request exactly to get its answer again, or use a new key for a new one."
    )


class RateLimited(ApiError):
    status = 429
    code = "rate_limited"
    summary = "Too many requests: wait for the seconds in Retry-After. Nothing was done."

    def __init__(self, sentence: str, retry_after_seconds: int) -> None:
        super().__init__(sentence, headers={"Retry-After": str(retry_after_seconds)})


class TooManyHeld(ApiError):
    status = 429
    code = "too_many_held"
    summary = "Faults hold too many requests already. Nothing was done; repeat it when some of them are over."

    def __init__(self, sentence: str | None = None) -> None:
        super().__init__(sentence, headers={"Retry-After": "1"})


class HeadTooLarge(ApiError):
    status = 431
    code = "head_too_large"
    summary = "The request's path and headers are larger than 64 KiB."


class InternalError(ApiError):
    status = 500
    code = "internal_error"
    summary = "Something went wrong in MockPay; its log has the details under this request id."


class DatabaseUnavailable(ApiError):
    status = 503
    code = "database_unavailable"
    summary = "The database can't be used right now. Retry with the same Idempotency-Key."

    def __init__(self, sentence: str | None = None) -> None:
        super().__init__(sentence, headers={"Retry-After": "1"})
