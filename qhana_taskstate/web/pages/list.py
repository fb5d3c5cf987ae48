"""The pages for people: the list of tasks. Rendered here, without a script; a script keeps them up to date."""

from __future__ import annotations

from typing import Any, Final

from flask import Response, redirect, request, url_for
from flask_smorest import Blueprint

from ...errors import TaskNotFoundError
from ...ids import LARGEST_ID
from ...reading import listing as reading_listing
from ...reading.listing import Counts, TaskFilter
from ..filters import before_of, cursor_of, storable
from ..site import Site
from .rendering import rendered

#: Tasks on a page.
_PAGE: Final = 50

#: The tabs of the list: name in the URL, label, filter.
_TABS: Final = (
    ("all", "All", TaskFilter()),
    ("open", "Not ended", TaskFilter(status="PENDING")),
    ("waiting", "Wait for you", TaskFilter(waiting=True)),
    ("failed", "Failed", TaskFilter(status="ERROR")),
    ("succeeded", "Succeeded", TaskFilter(status="SUCCESS")),
)


class Pages:
    """The views of the list.

    Args:
        site: What they belong to.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    def register(self, blueprint: Blueprint) -> None:
        """Add the views to a blueprint."""
        blueprint.add_url_rule("/", "page", self.list)
        blueprint.add_url_rule("/cancel", "cancel_some", self.cancel, methods=["POST"])

    def list(self) -> Response:
        """Show tasks, newest first."""
        state = self._site.taskstate()
        tab = request.args.get("show", "all")
        chosen = next((wanted for name, _, wanted in _TABS if name == tab), TaskFilter())
        search = storable(request.args.get("search"))
        wanted = TaskFilter(status=chosen.status, waiting=chosen.waiting, search=search)
        cursor = request.args.get("before", "")
        before = before_of(wanted, cursor) if cursor else None
        with state.sessions.explaining(), state.database.reading() as connection:
            page = reading_listing.find_page(
                connection,
                state.settings,
                wanted,
                before=None if before is None else min(before, LARGEST_ID),
                limit=_PAGE,
            )
            counts = reading_listing.count(connection)
        return rendered(
            "taskstate/list.html",
            site=self._site,
            tasks=page.tasks,
            tabs=[(name, label, _count_of(counts, name)) for name, label, _ in _TABS],
            tab=tab,
            search=search or "",
            next=None if page.before is None else cursor_of(wanted, page.before),
            further=before is not None,
            empty=not page.tasks and tab == "all" and search is None and before is None,
        )

    def cancel(self) -> Any:
        """Cancel the tasks that were ticked, and show the list again."""
        state = self._site.taskstate()
        for text in request.form.getlist("task")[:500]:
            try:
                state.cancel(text, reason="on the page")
            except TaskNotFoundError:
                # It was removed since the page was made.
                continue
        kept: dict[str, Any] = {name: value for name in ("show", "search") if (value := request.form.get(name))}
        return redirect(url_for(".page", **kept), 303)


def _count_of(counts: Counts, tab: str) -> str | None:
    found = {"open": counts.open, "waiting": counts.waiting, "failed": counts.failed}.get(tab)
    if found is None:
        return None
    return f"{found:,}" if found < counts.most else f"{counts.most:,}+"
