"""The API as HTTP: its paths, what they take and answer, and its documentation."""

import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from time import perf_counter
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.api.answers import Answers
from flows.api.metrics import Metrics
from flows.api.requests import Intake, Refusal
from flows.champion import Champion
from model.settings import Decision

Bearer = HTTPBearer(auto_error=False, description="AOI_TOKEN of the server")
PREDICT = "/v1/predict"
COUNTED = (PREDICT, "/v1/model", "/healthz", "/readyz", "/metrics")
YES = TypeAdapter(bool)  # as FastAPI reads it


class Problem(BaseModel):
    """Why there is no answer: what was seen, and what helps."""

    seen: str
    remedy: str


class Refused(BaseModel):
    """The body of every status but 200."""

    error: Problem


class Who(BaseModel):
    """The model that answered: its name and version in MLflow, and its fingerprint in HOME."""

    name: str
    version: str | None
    fingerprint: str


class Result(BaseModel):
    """The answer about one picture. id: its file name; error: why it could not be read, and then all else is null."""

    id: str | None
    label: int | None
    name: str | None
    probabilities: dict[str, float] | None
    decision: Decision | None
    novelty: float | None
    error: Problem | None
    heat_map: str | None = None


class Predicted(BaseModel):
    """The answers, in the order of the pictures."""

    model: Who
    results: list[Result]


class Described(BaseModel):
    """The model that answers now. operating, promise: as in operating.json; trained: when, in UTC."""

    model: Who
    classes: list[str]
    preprocess: dict[str, Any]
    predict: dict[str, Any]
    operating: dict[str, Any] | None
    promise: dict[str, Any] | None
    trained: str


FILE = {"type": "string", "format": "binary"}
PICTURES = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": FILE},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "array", "items": FILE, "minItems": 1}},
                    "required": ["file"],
                }
            },
        },
    }
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What the documentation says of statuses other than 200."""
    return {status: {"model": Refused, "description": HTTPStatus(status).phrase} for status in statuses}


def make_app(champion: Champion, intake: Intake, answers: Answers, metrics: Metrics, token: str) -> ASGIApp:
    """The application. token: that clients must bring; "": whoever reaches it may ask."""

    app = FastAPIOffline(  # whose page of /docs needs no internet
        title="aoi",
        version="1",
        description="Names the defect on inspection pictures, and decides what becomes of the part.",
        redoc_url=None,
    )
    admit = _admission(token) if token else None
    guarded = [Depends(admit)] if admit else []

    @app.post(
        PREDICT,
        dependencies=guarded,
        response_model=Predicted,
        responses=refusals(400, 401, 408, 413, 422, 501, 503),
        openapi_extra=PICTURES,
        summary="Answer one picture or several",
    )
    async def predict(
        request: Request,
        explain: Annotated[bool, Query(description="add heat_map: what spoke for the answer, a PNG in base64")] = False,
    ) -> Response:
        try:
            pictures = await intake.read(request)
            served = champion.now  # one model answers the whole request
            results = await answers.results(served, pictures, explain)
        finally:
            intake.let_go(request)
        if len(results) == 1 and (error := results[0]["error"]):
            raise Refusal(422, error["seen"], error["remedy"])
        return _json({"model": served.who, "results": results})

    @app.get(
        "/v1/model",
        dependencies=guarded,
        response_model=Described,
        responses=refusals(401),
        summary="The model that answers now",
    )
    async def model() -> Response:
        return _json(champion.now.describe())

    @app.head("/healthz", include_in_schema=False)
    @app.head("/readyz", include_in_schema=False)
    @app.get("/healthz", response_class=PlainTextResponse, summary="Whether the process lives")
    @app.get("/readyz", response_class=PlainTextResponse, summary="Whether pictures are answered")
    async def well() -> str:
        return "ok"

    @app.get(
        "/metrics",
        dependencies=guarded,
        response_class=PlainTextResponse,
        responses=refusals(401),
        summary="Figures for Prometheus",
    )
    async def figures() -> Response:
        text = await run_in_threadpool(metrics.text, champion.now)
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    _answer_errors(app)
    return _Front(app, admit, predict, metrics)


def _admission(token: str) -> Callable[[HTTPAuthorizationCredentials | None], None]:
    """What refuses a request that does not bring the token."""

    def admit(given: Annotated[HTTPAuthorizationCredentials | None, Depends(Bearer)]) -> None:
        # Of equal length, so that the time of the comparison tells nothing.
        known, brought = (_digest(text) for text in (token, given.credentials if given else ""))
        if not hmac.compare_digest(known, brought):
            remedy = "Send the header Authorization: Bearer TOKEN"
            raise Refusal(401, "no token, or another one", remedy, {"WWW-Authenticate": "Bearer"})

    return admit


def _answer_errors(app: FastAPI) -> None:
    """Makes every error an answer with what was seen and what helps."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> Response:
        return _refusal(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return _refusal(_invalid(first["loc"][-1], first["msg"]))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        seen = f"{request.method} {request.url.path}: {error.detail}"
        return _refusal(Refusal(error.status_code, seen, "See /docs for what there is", error.headers))

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return _fault()


class _Front:
    """What is before FastAPI: it counts requests and their time, and answers pictures itself.

    FastAPI documents how pictures are answered; its way there would take 0.3 ms of an answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        admit: Callable[[HTTPAuthorizationCredentials | None], None] | None,
        predict: Callable[[Request, bool], Awaitable[Response]],
        metrics: Metrics,
    ):
        self._app, self._admit, self._predict, self._metrics = app, admit, predict, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = perf_counter(), 500

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if scope["path"] == PREDICT and scope.get("method") == "POST":  # a WebSocket has none
                await self._answer(scope, receive, told)
            else:
                await self._app(scope, receive, told)
        finally:
            path = scope["path"] if scope["path"] in COUNTED else "other"
            self._metrics.requests.labels(path, status).inc()
            self._metrics.seconds.labels(path).observe(perf_counter() - began)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            if self._admit:
                self._admit(await Bearer(request))
            response = await self._predict(request, _explain(request))
        except Refusal as error:
            response = _refusal(error)
        except Exception:
            await _fault()(scope, receive, send)
            raise  # uvicorn writes it down
        await response(scope, receive, send)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="replace")).digest()


def _json(value: Any, status: int = 200, headers: Any = None) -> Response:
    content = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    return Response(content, status, headers, media_type="application/json")


def _refusal(error: Refusal) -> Response:
    return _json({"error": {"seen": error.seen, "remedy": error.remedy}}, error.status, error.headers)


def _invalid(name: str, seen: str) -> Refusal:
    return Refusal(422, f"{name}: {seen}", "See /docs")


def _fault() -> Response:
    return _refusal(Refusal(500, "a fault of the server; its log has more", "Report it, with the picture"))


def _explain(request: Request) -> bool:
    """What the query says of it. Raises: Refusal."""
    try:
        return YES.validate_python(request.query_params.get("explain", False))
    except ValidationError as error:
        raise _invalid("explain", error.errors()[0]["msg"])
