"""Celery's ids of messages: which ones are taken, and what the columns hold of one that is too long for them."""

from __future__ import annotations

import functools
import hashlib
from typing import Final

from ...database.tables.base import ID_LENGTH
from ...errors import ArgumentsError, CeleryIdError, TextCharacterError
from ...texts import clean, is_storable, refuse_unstorable

#: How much of an id that is too long is kept, before a mark and a digest of the whole.
_KEPT: Final = ID_LENGTH - 33

#: The form of `celery.utils.uuid()`: length, where its hyphens are, and where the digit for "random" is.
_RANDOM_LENGTH, _HYPHENS, _VERSION = 36, (8, 13, 18, 23), 14


def check_celery_id(celery_id: object) -> None:
    """Check an id that somebody chose for a message.

    Raises:
        ArgumentsError: If it is no text, empty, or longer than the columns.
        CeleryIdError: If it has a character that no database takes.
    """
    if not isinstance(celery_id, str) or not 0 < len(celery_id) <= ID_LENGTH:
        raise ArgumentsError(f"task_id {celery_id!r} is no text of 1 to {ID_LENGTH} characters; nothing was sent")
    try:
        refuse_unstorable(celery_id, "task_id")
    except TextCharacterError as exc:
        raise CeleryIdError(exc.member, exc.character, exc.position) from None


# Kept for a while: an execution is asked for by its id when it begins and when it ends.
@functools.lru_cache(maxsize=256)
def column_id(celery_id: str) -> str:
    """Return what the columns hold of an id: itself, or its beginning and a digest if they cannot hold it.

    Messages that are no plugin task's are not refused for their id, and two of those must stay apart.
    """
    if len(celery_id) <= ID_LENGTH and is_storable(celery_id):
        return celery_id
    digest = hashlib.sha256(celery_id.encode(errors="surrogatepass")).hexdigest()[:32]
    return f"{clean(celery_id[:_KEPT])}~{digest}"


def is_chosen(celery_id: str) -> bool:
    """Tell whether an id may be used again, since it is none of the random ones that Celery gives by itself."""
    return not (
        len(celery_id) == _RANDOM_LENGTH
        and celery_id[_VERSION] == "4"
        and all(celery_id[position] == "-" for position in _HYPHENS)
    )
