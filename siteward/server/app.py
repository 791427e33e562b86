"""The web application: routers found by entry point, one door, one way to answer errors."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from siteward import __version__, extensions
from siteward.exposure import serving
from siteward.holding import hold
from siteward.log import get_logger
from siteward.server import health, metrics
from siteward.server.auth import Permission, requires
from siteward.server.auth.access import Access, UndeclaredError, permission_of
from siteward.server.auth.api import router as access_router
from siteward.server.auth.auditing import Auditing
from siteward.server.auth.door import Door
from siteward.server.auth.login_api import router as login_router
from siteward.server.problems import answer_problems, problem_of
from siteward.server.resources import Resources
from siteward.server.schedule import Leases, Schedule, Task, load_tasks
from siteward.server.undeclared import refuse_undeclared
from siteward.settings import Settings, SettingsError

GRACE: Final = 5
"""Seconds that open requests have to finish when the app stops."""
POLICY: Final = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""What every answer carries unless its route says otherwise."""

RouterFactory = Callable[[Settings], APIRouter]
log = get_logger(__name__)


def create_app(
    settings: Settings,
    *,
    routers: Sequence[RouterFactory] | None = None,
    tasks: Sequence[Task] = (),
    resources: Resources | None = None,
) -> FastAPI:
    """The application, complete and checked; nothing is opened before the first request needs it.

    Args:
        settings: of this installation.
        routers: functions that make a router; all installed ones (entry points `siteward.routers`) by default.
        tasks: periodic tasks to run while the app is up.
        resources: shared objects; new ones by default. The app closes them when it stops.

    Raises:
        siteward.settings.SettingsError: the app would be reachable from other machines without an issuer of tokens that
            is trusted, or one cannot be trusted as the settings say.
        OSError: the file of our own issuer can neither be read nor made.
        siteward.extensions.ExtensionError: a router does not load, or a package of ours comes from elsewhere.
        siteward.server.auth.access.UndeclaredError: a route, or one of the tasks, declares no permission.
    """
    extensions.check_packages()
    for task in tasks:
        if not isinstance(task, Task):
            message = f"{task!r} is no Task, and declares no permission"
            raise UndeclaredError(message)
    shared = resources or Resources(settings)
    door = Door(settings, lambda: shared.denied, lambda: shared.sessions)
    # The generated pages of FastAPI load their scripts from elsewhere; /openapi.json is served by a route of ours.
    app = FastAPI(
        title="Siteward",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(shared, tasks),
    )
    app.state.resources = shared
    made = [make(settings) for make in (_installed() if routers is None else routers)]
    own = (health.router(shared), metrics.router(shared), access_router(shared), login_router(shared, door))
    for router in (*own, _description(app), *made):
        # Flat, not included: the door and the check below see each route as its author wrote it.
        app.router.routes.extend(router.routes)
    for route in app.router.routes:
        permission_of(route)
    answer_problems(app)
    # The last one added is the outermost.
    app.add_middleware(Auditing, audit=lambda: shared.audit)
    app.add_middleware(Access, door=door, routes=app.router.routes)
    app.add_middleware(Shell)
    return app


def _installed() -> Iterable[RouterFactory]:
    return [entry.load() for entry in extensions.found("siteward.routers").values()]


def _lifespan(resources: Resources, tasks: Sequence[Task]) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        leases = Leases(resources.settings.folder / "schedule.sqlite") if tasks else None
        schedule = Schedule(tasks, resources, leases) if leases else None
        if schedule:
            schedule.start()
        try:
            yield
        finally:
            if schedule:
                await asyncio.to_thread(schedule.stop)
            await asyncio.to_thread(resources.close)

    return lifespan


def _description(app: FastAPI) -> APIRouter:
    """The route that describes all others."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/openapi.json", dependencies=[Depends(requires(Permission.READ))])
    def openapi() -> Response:
        return JSONResponse(app.openapi())

    return routes


class Shell:
    """The outermost ASGI layer: security headers on every answer, and no exception beyond it."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap everything else."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 500 without internals where something raises, and log it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def dressed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, dressed)
        except Exception as error:
            log.exception("request failed", method=scope["method"], path=scope["path"])
            if started:
                # Half an answer cannot be taken back: the connection breaks, so that nobody takes it for whole.
                raise
            await problem_of(error).response()(scope, receive, dressed)


def run(settings: Settings, stop: threading.Event) -> None:
    """The service `app`: serve until `stop` is set, and run the periodic tasks meanwhile.

    Its address stands in `<data>/run/app.url` while it runs.

    Raises:
        siteward.settings.SettingsError: the address cannot be listened on, or is not allowed.
        siteward.extensions.ExtensionError: a command or a task declares no permission.
    """
    refuse_undeclared()
    app, own = create_app(settings, tasks=load_tasks()), settings.server
    # Found out before anybody listens; uvicorn reads the files again.
    is_encrypted = serving("server", own.certificate, own.key) is not None
    with _listening(settings) as listening:
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=GRACE,
                ssl_certfile=own.certificate or None,
                ssl_keyfile=own.key or None,
            )
        )
        # uvicorn's own warnings are lines of our log; what a request does wrong is in its answer.
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
        # In a thread of its own it leaves the signals to the service.
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="uvicorn")
        thread.start()
        # By a certificate's own name, or it would not be believed.
        url = own.url if is_encrypted and own.url else _url(listening, "https" if is_encrypted else "http")
        with _told(settings.folder / "run" / "app.url", url):
            log.info("app answers", url=url)
            while thread.is_alive() and not stop.wait(0.2):
                pass
            server.should_exit = True
            thread.join()
    if not stop.is_set():
        message = "the web server ended by itself"
        raise RuntimeError(message)


@contextmanager
def _told(path: Path, url: str) -> Iterator[None]:
    """Have the app's address in a file that is held until the end: one that was left behind is known as such."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Another file each time: one app that is about to end must not take away what the next one has written.
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("w", encoding="utf-8") as file:
        hold(file)
        file.write(url)
        file.flush()
        draft.replace(path)
        try:
            yield
        finally:
            with suppress(OSError):
                if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    path.unlink()


def _listening(settings: Settings) -> socket.socket:
    host, port = settings.server.host, settings.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=512)
    except OSError as error:
        message = f"cannot listen on {host}:{port}: {error.strerror}; choose another port with SITEWARD_SERVER__PORT"
        raise SettingsError(message) from error


def _url(listening: socket.socket, scheme: str) -> str:
    host, port = listening.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
