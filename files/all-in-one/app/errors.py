"""Every error in one shape, OpenAI's: {"error": {"message", "type", "param", "code"}}."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from psycopg import OperationalError
from psycopg.errors import DiskFull
from psycopg_pool import PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from app.log import log_exception
from pipeline.errors import AbandonedError, ModelError, OverloadedError
from store.errors import BusyError, StoreError

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}


class ApiError(Exception):
    """An answer that is not the one asked for. `param` is the field at fault, `code` a word that programs compare."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int = 0,
        scope: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after
        self.scope = scope


def body(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def response(error: ApiError) -> JSONResponse:
    headers = {"retry-after": str(error.retry_after)} if error.retry_after else {}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.scope:
        headers["www-authenticate"] = f'Bearer error="insufficient_scope", scope="{error.scope}"'
    return JSONResponse(body(error.status, error.message, error.param, error.code), error.status, headers)


def install(app: FastAPI) -> None:
    """Answer every exception in the one shape."""
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(OperationalError, _database)
    app.add_exception_handler(DiskFull, _disk_full)
    app.add_exception_handler(PoolTimeout, _database)
    app.add_exception_handler(BusyError, _busy)
    app.add_exception_handler(StoreError, _not_ready)
    app.add_exception_handler(ModelError, _model)
    app.add_exception_handler(OverloadedError, _overloaded)
    app.add_exception_handler(AbandonedError, _abandoned)


def _api_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return response(error)


def _validation(_: Request, error: Exception) -> JSONResponse:
    """The first problem, in words; never the value, which may be a customer's text."""
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    param = ".".join(str(part) for part in problem["loc"][1:]) or None
    if problem["type"] == "json_invalid":
        return JSONResponse(body(400, "The body is not JSON.", None, "invalid_json"), 400)
    message = f"{param}: {problem['msg']}." if param else f"{problem['msg']}."
    return JSONResponse(body(400, message, param, problem["type"]), 400)


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    messages = {
        404: f"There is nothing at {request.method} {request.url.path}.",
        405: f"{request.url.path} does not take {request.method}.",
    }
    message = messages.get(error.status_code, str(error.detail))
    return JSONResponse(body(error.status_code, message), error.status_code, error.headers)


def _database(_: Request, error: Exception) -> JSONResponse:
    log_exception("database_unavailable", error)
    answer = ApiError(503, "The database does not answer; try again.", code="database_unavailable", retry_after=2)
    return response(answer)


def _busy(_: Request, __: Exception) -> JSONResponse:
    message = "The box is overloaded: every connection to its database is in use. Try again in 2 s."
    return response(ApiError(429, message, code="overloaded", retry_after=2))


def _disk_full(_: Request, error: Exception) -> JSONResponse:
    log_exception("disk_full", error)
    message = "The database has no room left on its disk: nothing of this request is stored. Make room and try again."
    return response(ApiError(503, message, code="disk_full", retry_after=30))


def _not_ready(_: Request, error: Exception) -> JSONResponse:
    return response(ApiError(503, str(error), code="not_ready", retry_after=2))


def _model(_: Request, error: Exception) -> JSONResponse:
    log_exception("model_failed", error)
    return response(ApiError(500, "The model failed on this input; the log has the details.", code="model_failed"))


def _overloaded(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OverloadedError)
    message = f"The box is overloaded: {error} Try again in {error.retry_after} s."
    return response(ApiError(429, message, code="overloaded", retry_after=error.retry_after))


def _abandoned(_: Request, __: Exception) -> JSONResponse:
    """For the log alone: nobody reads it. 499 is what proxies write for a client that closed the connection."""
    return response(ApiError(499, "The client went away.", code="client_closed_request"))


def unexpected(error: Exception) -> JSONResponse:
    """For what no handler knows; the guard catches it, so that the answer has the request's id."""
    log_exception("unexpected", error)
    return response(ApiError(500, "Something unexpected failed; the log has the details under this request's id."))
