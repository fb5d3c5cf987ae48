"""The OpenAPI document of the blueprint, and a page that shows it without assets from other hosts."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from flask import Flask, Response, json, url_for
from flask_smorest import Api, Blueprint

from ..site import Site
from .rendering import rendered


class OpenApi:
    """The views of the document.

    Args:
        site: What they belong to.
        blueprint: What it describes.
    """

    def __init__(self, site: Site, blueprint: Blueprint) -> None:
        self._site = site
        self._blueprint = blueprint

    def register(self, blueprint: Blueprint) -> None:
        """Add the views to a blueprint."""
        blueprint.add_url_rule("/openapi.json", "openapi", self.document)
        blueprint.add_url_rule("/openapi", "openapi_page", self.page)

    @cached_property
    def _described(self) -> dict[str, Any]:
        # In an application of its own: the host may have no `Api`, or one that knows nothing of this blueprint.
        app = Flask("qhana_taskstate.web.described")
        app.config.update(API_TITLE="qhana_taskstate", API_VERSION="1", OPENAPI_VERSION="3.0.3")
        api = Api(app)
        api.register_blueprint(self._blueprint)
        described: dict[str, Any] = api.spec.to_dict()
        return described

    def document(self) -> Response:
        """Send the document."""
        root = url_for(".page").rstrip("/") or "/"
        told = {**self._described, "servers": [{"url": root}]}
        return Response(json.dumps(told), mimetype="application/json")

    def page(self) -> Response:
        """Show the document to people."""
        return rendered("taskstate/openapi.html", site=self._site, document=self._described)
