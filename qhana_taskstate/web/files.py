"""Output files: where they are found, and the local ones themselves."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from flask import Response, send_file

from ..models.file import TaskFile
from .access import same_secret
from .problems import not_found

#: Tells where a file of the host's own store is found; None where it does not know.
FileUrl = Callable[[TaskFile], str | None]

_LOCAL: Final = "local_filesystem"
_URL: Final = "url_file_store"

#: A page that a task wrote is shown with its own styles, and can do nothing.
_POLICY: Final = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"

_MIMETYPE: Final = re.compile(r"[\w.+-]+/[\w.+-]+(?:\s*;\s*[\w-]+=[\w.+-]+)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Files:
    """Knows the files of tasks.

    Attributes:
        root: Folder below which local files must be to be sent; None sends none.
        file_url: The host's own answer to where a file is found; where it says None, the default holds.
    """

    root: Path | None = None
    file_url: FileUrl | None = None

    def href(self, file: TaskFile, base: str) -> str | None:
        """Return where a file is found, None if nobody knows; only http and https, or a path from the root."""
        told = self.file_url(file) if self.file_url is not None else None
        if told is None and file.storage_provider == _LOCAL:
            told = f"{base}/files/{file.id}/?file-id={quote(file.security_tag, safe='')}"
        if told is None and file.storage_provider == _URL:
            told = file.file_storage_data
        return told

    def send(self, file_id: int, tag: str) -> Response:
        """Return a local file, or the range of it that was asked for; 404 in every other case.

        Args:
            file_id: Id of the `TaskFile`.
            tag: The `security_tag` that the client knows.
        """
        file = TaskFile.get_by_id(file_id)
        # Compared in any case, so that the time does not tell which ids there are.
        right = same_secret(tag, file.security_tag if file is not None else "-")
        if file is None or not right or file.storage_provider != _LOCAL:
            not_found("File")
        path = self._path(file.file_storage_data)
        if path is None:
            not_found("File")
        mimetype = file.mimetype or ""
        if not _MIMETYPE.fullmatch(mimetype):
            mimetype = "application/octet-stream"
        name = re.sub(r"[\x00-\x1f\x7f/\\]", "_", file.file_name or path.name)
        sent = send_file(path, mimetype=mimetype, conditional=True, download_name=name, max_age=0)
        sent.headers["Content-Security-Policy"] = (
            "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
        )
        sent.headers["X-Content-Type-Options"] = "nosniff"
        return sent

    def _path(self, stored: str) -> Path | None:
        if self.root is None or "\0" in stored:
            return None
        try:
            path = Path(stored).resolve(strict=True)
            inside = path.is_relative_to(self.root.resolve())
        except (OSError, RuntimeError, ValueError):
            return None
        return path if inside and path.is_file() else None


def is_followable(href: str) -> bool:
    """Tell whether a link with this URL may be offered to a person: http and https, or a path of this server."""
    try:
        parts = urlsplit(href.strip())
    except ValueError:
        return False
    if parts.scheme.lower() in {"http", "https"}:
        return bool(parts.netloc)
    return not parts.scheme and not parts.netloc and href.startswith("/") and not href.startswith(("//", "/\\"))
