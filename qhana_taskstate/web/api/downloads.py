"""`GET /files/<id>/`: local output files."""

from __future__ import annotations

from typing import Any

from flask import Response
from flask_smorest import Blueprint

from ..files import Files
from .schemas import FileQuerySchema


class FileDownload:
    """The view of local output files.

    Args:
        files: Where they are.
    """

    def __init__(self, files: Files) -> None:
        self._files = files

    def register(self, blueprint: Blueprint) -> None:
        """Add the view to a blueprint."""
        get = blueprint.alt_response(404, description="There is no such file for this tag.")(self.get)
        get = blueprint.response(200, content_type="*/*", description="The file, or a range of it.")(get)
        get = blueprint.arguments(FileQuerySchema, location="query")(get)
        blueprint.route("/files/<int:file_id>/", methods=["GET"], endpoint="file")(get)

    def get(self, query: dict[str, Any], file_id: int) -> Response:
        """Send a local output file, or the range of it that is asked for."""
        return self._files.send(file_id, query.get("file_id", ""))
