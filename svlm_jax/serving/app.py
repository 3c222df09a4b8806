"""The server as one ASGI application: access rules around the protocols and the page."""

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool

from svlm_jax.errors import RequestError, SvlmError
from svlm_jax.serving import access, chat, streams
from svlm_jax.serving.hub import Hub
from svlm_jax.serving.limits import RateLimit
from svlm_jax.serving.realtime import RealtimeConnection

logger = logging.getLogger(__name__)

OPEN_PATHS = ("/healthz", "/readyz")  # orchestrators ask these without a key
CLIENTS = 4_096  # addresses whose request rates are remembered


def create_app(hub: Hub) -> FastAPI:
    """The application over a hub; starts it with the server, and drains it at the end."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        hub.start()
        yield
        await run_in_threadpool(hub.stop)

    app = FastAPI(title="svlm-jax", docs_url=None, redoc_url=None, openapi_url="/openapi.json", lifespan=lifespan)
    rates: dict[str, RateLimit] = {}

    def within_rate(client: str) -> bool:
        if client not in rates and len(rates) >= CLIENTS:
            rates.pop(next(iter(rates)))
        limit = hub.limits.requests_per_minute
        return rates.setdefault(client, RateLimit(limit / 60, limit)).allows()

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        problem = None
        page = request.method == "GET" and (request.url.path == "/" or request.url.path.startswith("/page/"))
        if request.url.path not in OPEN_PATHS:
            if not within_rate(request.client.host if request.client else "?"):
                problem = RequestError("too_many_requests", "too many requests: expected fewer a minute", status=429)
            elif not hub.access.trusts_origin(request.headers):
                problem = RequestError("bad_origin", "pages of this site may not use this server", status=403)
            elif not page and not hub.access.admits(request.headers):
                problem = RequestError("unauthorized", "expected an API key: Authorization: Bearer KEY", status=401)
        response = sentence(problem) if problem is not None else await call_next(request)
        response.headers.update(access.HEADERS)
        return response

    @app.exception_handler(SvlmError)
    async def told(_: Request, error: SvlmError) -> JSONResponse:
        return sentence(error)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the process answers and its scheduler runs."""
        if not hub.scheduler.alive:
            raise RequestError("dead", "the scheduler has stopped", status=503)
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        """Whether new streams are taken: programs are compiled, and the server does not stop."""
        if hub.stopping or not hub.scheduler.ready:
            raise RequestError("not_ready", "the server is starting or stopping", status=503)
        return {"status": "ready"}

    @app.get("/metrics")
    async def metrics() -> Response:
        content, kind = hub.metrics.exposition()
        return Response(content, media_type=kind)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        model = {"id": hub.model, "object": "model", "created": 0, "owned_by": "svlm-jax", "svlm": hub.about()}
        return {"object": "list", "data": [model]}

    @app.websocket("/v1/realtime")
    async def realtime(socket: WebSocket, session_id: str | None = None) -> None:
        client = socket.client.host if socket.client else "?"
        name = session_id or socket.headers.get("x-session-id")
        if not within_rate(client) or not hub.access.trusts_origin(socket.headers) or not hub.access.admits(socket.headers):
            await socket.close(1008, "refused")
            return
        await RealtimeConnection(socket, hub).run(name)

    app.include_router(streams.router(hub))
    app.include_router(chat.router(hub))
    page = resources.files("svlm_jax.serving") / "page"

    @app.get("/")
    async def index() -> Response:
        return Response((page / "index.html").read_text(encoding="utf-8"), media_type="text/html")

    app.mount("/page", StaticFiles(directory=str(page)))
    return app


def sentence(error: SvlmError) -> JSONResponse:
    """An error in the shape that OpenAI's clients read."""
    code, status, param = (error.code, error.status, error.param) if isinstance(error, RequestError) else ("failed", 400, None)
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": str(error), "type": kind, "param": param, "code": code}}, status_code=status)
