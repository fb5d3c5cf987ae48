"""`GET /healthz`: whether this server can do its work."""

from __future__ import annotations

from typing import Any

from flask import Response, json
from flask_smorest import Blueprint
from sqlalchemy.exc import SQLAlchemyError

from ...database import schema as database_schema
from ...errors import DatabaseUnavailableError, SchemaError
from ..problems import RETRY_SECONDS
from ..site import Site


class Health:
    """The view.

    Args:
        site: What it belongs to.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    def register(self, blueprint: Blueprint) -> None:
        """Add the view to a blueprint; it asks nobody for permission, and tells nothing but yes or no."""
        get = blueprint.alt_response(503, description="It is not.")(self.get)
        get = blueprint.response(200, description="The database answers, and its schema fits.")(get)
        blueprint.route("/healthz", methods=["GET"], endpoint="health")(get)

    def get(self) -> Any:
        """Tell whether this server can do its work."""
        try:
            database_schema.check(self._site.taskstate().database)
        except (DatabaseUnavailableError, SQLAlchemyError):
            return _unready("the database cannot be reached")
        except SchemaError:
            return _unready("the tables are missing or too old; run: celery -A worker taskstate upgrade")
        return {"status": "ready"}


def _unready(reason: str) -> Response:
    told = json.dumps({"code": 503, "status": "Service Unavailable", "message": reason})
    return Response(told, 503, {"Retry-After": str(RETRY_SECONDS)}, mimetype="application/json")
