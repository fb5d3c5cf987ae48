"""Reads the steps, outputs and links of tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from ...database.tables.runner import file_table, link_table, step_table
from ...models.file import TEMPORARY_FILE_TYPE
from ...settings.values import Settings
from ...store.task.steps import is_uncleared
from .query import IDS_AT_ONCE
from .views import LinkView, OutputView, StepView

#: Providers of today's plugin runner whose files have an address that can be told without asking the store.
_LOCAL_PROVIDER: Final = "local_filesystem"


_URL_PROVIDER: Final = "url_file_store"


#: Tells where the file of a `TaskFile` with an id is found; None if it does not know.
HrefOf = Callable[[int], str | None]


@dataclass(frozen=True, slots=True)
class Addresses:
    """Tells where things are, as far as the caller or else the settings know."""

    settings: Settings
    given_base: str | None = None
    href_of: HrefOf | None = None

    @property
    def base(self) -> str | None:
        url = self.settings.public_url if self.given_base is None else self.given_base
        return None if url is None else url.rstrip("/")

    def subscribe_links(self, task_id: int) -> list[dict[str, Any]]:
        return [] if self.base is None else [{"type": "subscribe", "href": f"{self.base}/tasks/{task_id}/"}]

    def of_file(self, file_id: int, provider: str, tag: str, storage_data: str) -> str | None:
        if self.href_of is not None:
            return self.href_of(file_id)
        if provider == _LOCAL_PROVIDER:
            return f"{self.base or ''}/files/{file_id}/?file-id={quote(tag, safe='')}"
        return storage_data if provider == _URL_PROVIDER else None


def waiting_steps(source: Connection | Session, task_ids: Sequence[int]) -> dict[int, StepView]:
    found: dict[int, StepView] = {}
    for position in range(0, len(task_ids), IDS_AT_ONCE):
        some = task_ids[position : position + IDS_AT_ONCE]
        query = select(step_table).where(step_table.c.id.in_(some), is_uncleared()).order_by(step_table.c.number)
        found.update({row["id"]: _step_view(row) for row in source.execute(query).mappings()})
    return found


def steps_of(source: Connection | Session, task_id: int) -> list[StepView]:
    rows = source.execute(select(step_table).where(step_table.c.id == task_id).order_by(step_table.c.number)).mappings()
    return [_step_view(row) for row in rows]


def _step_view(row: Mapping[Any, Any]) -> StepView:
    return StepView(
        number=row["number"],
        step_id=row["step_id"] or "",
        href=row["href"] or "",
        ui_href=row["ui_href"] or "",
        cleared=bool(row["cleared"]),
    )


def outputs_of(source: Connection | Session, task_id: int, addresses: Addresses) -> list[OutputView]:
    query = (
        select(file_table)
        .where(
            file_table.c.task_id == task_id,
            file_table.c.file_type.is_not(None),
            file_table.c.file_type != TEMPORARY_FILE_TYPE,
            file_table.c.mimetype.is_not(None),
        )
        .order_by(file_table.c.id)
    )
    return [
        OutputView(
            id=row["id"],
            file_name=row["file_name"],
            file_type=row["file_type"],
            mimetype=row["mimetype"],
            storage_provider=row["storage_provider"],
            href=addresses.of_file(row["id"], row["storage_provider"], row["security_tag"], row["file_storage_data"]),
            path=row["file_storage_data"] if row["storage_provider"] == _LOCAL_PROVIDER else None,
        )
        for row in source.execute(query).mappings()
    ]


def links_of(source: Connection | Session, task_id: int) -> list[LinkView]:
    query = (
        select(link_table.c.type, link_table.c.href).where(link_table.c.task_id == task_id).order_by(link_table.c.id)
    )
    return [LinkView(type=row.type, href=row.href) for row in source.execute(query)]
