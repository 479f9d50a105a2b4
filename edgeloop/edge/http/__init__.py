"""The same answers over HTTP, so that whatever speaks KServe's protocols can stand before a node.

V1 paths of TF Serving and KServe, the Open Inference Protocol (V2), feedback, health and metrics.
"""

from __future__ import annotations

from edgeloop.edge.http import pages
from edgeloop.edge.http.app import MAX_BODY, App, Page, Route, Site
from edgeloop.edge.http.server import (
    AddressTaken,
    UnusableAddress,
    UnusableTls,
    bind,
    make_server,
    new_event_loop,
    server_config,
)
from edgeloop.edge.http.v1 import predict
from edgeloop.edge.http.v2 import infer

__all__ = [
    "AddressTaken",
    "App",
    "Site",
    "UnusableAddress",
    "UnusableTls",
    "bind",
    "make_app",
    "make_server",
    "new_event_loop",
    "server_config",
]

_GET = ("GET", "HEAD")
_POST = ("POST",)
_V1 = "/v1/models/{service}"
_V2 = "/v2/models/{service}"
_VERSION = "/versions/{version}"
_REPOSITORY = "/v2/repository"


def make_app(site: Site) -> App:
    """The application. Inference comes first: routes are tried in order."""
    return App(
        site,
        [
            _inference(f"{_V2}/infer", infer),
            _inference(f"{_V1}:predict", predict),
            _inference(f"{_V2}{_VERSION}/infer", infer),
            _inference(f"{_V1}{_VERSION}:predict", predict),
            Route(_POST, f"{_V1}/feedback", pages.feedback, body=pages.SMALL),
            Route(_GET, "/healthz", pages.alive, who="open"),
            Route(_GET, "/readyz", pages.ready, who="open"),
            Route(_GET, "/metrics", pages.metrics, waits=True),
            Route(_GET, "/v1/models", pages.v1_models),
            Route(_GET, _V1, pages.v1_model),
            Route(_GET, f"{_V1}{_VERSION}", pages.v1_model),
            Route(_GET, "/v2", pages.v2_server),
            Route(_GET, "/v2/health/live", pages.alive, who="open"),
            Route(_GET, "/v2/health/ready", pages.ready, who="open"),
            Route(_GET, _V2, pages.v2_model),
            Route(_GET, f"{_V2}{_VERSION}", pages.v2_model),
            Route(_GET, f"{_V2}/ready", pages.v2_ready),
            Route(_GET, f"{_V2}{_VERSION}/ready", pages.v2_ready),
            Route(_POST, f"{_REPOSITORY}/index", pages.v2_index, body=pages.SMALL),
            Route(_POST, f"{_REPOSITORY}/models/{{service}}/load", pages.load, who="admin", body=pages.SMALL),
            Route(_POST, f"{_REPOSITORY}/models/{{service}}/unload", pages.unload, who="admin", body=pages.SMALL),
        ],
    )


def _inference(path: str, page: Page) -> Route:
    return Route(_POST, path, page, body=MAX_BODY, infers=True)
