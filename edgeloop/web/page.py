"""The fleet page: what runs where, and what is wrong, for a person with a browser. It shows and changes nothing.

Rendered on the server; there is no script in it. Who may do what comes with the first button, not before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from edgeloop.web.glance import Glance, Look
from edgeloop.web.troubles import troubles

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response
    from jinja2 import Environment

#: Names under which a browser may ask; a page elsewhere that lets its own name point here gets nothing.
HOSTS = ["127.0.0.1", "localhost", "[::1]"]
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def create_page(look: Look, keep: float = 2.0, patience: float = 4.0) -> FastAPI:
    """The application: ``/`` for people, ``/status.json`` for programs, ``/healthz`` for whoever started it.

    Args:
        look: gives an overview as :func:`edgeloop.web.overview.look_at` does; called in a thread, one at a time.
        keep: seconds for which a look is shown again.
        patience: seconds that a request waits for a new look before it gets the last one.
    """
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = FastAPI(title="edgeloop", docs_url=None, redoc_url=None, openapi_url=None)
    _add_routes(app, Glance(look, keep, patience), _templates())
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)
    app.middleware("http")(_with_headers)
    return app


def _add_routes(app: FastAPI, glance: Glance, templates: Environment) -> None:
    from fastapi.responses import HTMLResponse, JSONResponse, Response

    page, style = templates.get_template("page.html"), templates.get_template("style.css").render()

    # Not async: these wait for a look, and then in a thread of their own.
    def home(still: bool = False) -> Response:
        seen = glance()
        wrong = troubles(seen.found) if seen.found else []
        return HTMLResponse(page.render(seen=seen, found=seen.found, troubles=wrong, still=still))

    def status() -> Response:
        seen = glance()
        if seen.found is None:
            return JSONResponse({"error": seen.late}, status_code=503)
        return JSONResponse({**seen.found, "at": seen.at.isoformat() if seen.at else None, "late": seen.late})

    async def healthz() -> Response:
        return JSONResponse({"live": True})

    async def css() -> Response:
        return Response(style, media_type="text/css", headers={"Cache-Control": "max-age=300"})

    for path, endpoint in {"/": home, "/status.json": status, "/healthz": healthz, "/style.css": css}.items():
        app.add_api_route(path, endpoint, methods=["GET", "HEAD"], response_model=None)


async def _with_headers(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await go_on(request)
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # StrictUndefined: a misspelt name is an error here, not an empty cell there.
    loader = PackageLoader("edgeloop.web")
    found = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    found.filters.update(short=short, is_link=is_link, moment=moment, bytes=size)
    return found


def short(digest: str | None) -> str:
    """The beginning of a digest, enough to tell two apart."""
    return digest.removeprefix("sha256:")[:12] if digest else "none"


def moment(value: str | None) -> str:
    """A time as people read it, of one that is written in ISO 8601; what is no time stays as it is."""
    try:
        return datetime.fromisoformat(value or "").astimezone(UTC).strftime("%d %b %H:%M:%S UTC")
    except ValueError:
        return value or "not known"


def size(count: int) -> str:
    """Bytes as people read them."""
    return f"{count / 1024**2:.1f} MiB" if count >= 1024**2 else f"{count // 1024} KiB"


def is_link(address: Any) -> bool:
    """Whether a browser may be sent there; nothing else becomes a link, whatever it says it is."""
    return isinstance(address, str) and address.startswith(("http://", "https://"))
