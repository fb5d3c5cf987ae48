"""Plainer values for a fact that the database refused: first in ASCII, then without what it reports.

A value that is refused, for example by the character set of a database or a constraint of its administrator, costs that
value and never the fact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ...facts import Failure, Publication, Reports
from ...store.closing.close import Closing
from ...texts import in_ascii

_REFUSED = "what was reported here could not be stored; see the worker's log"


def plainer_reports(reports: Reports) -> Iterator[Reports]:
    """Yield what to write in the place of reports that were refused, and in the place of that."""
    progress = reports.progress
    yield Reports(
        [in_ascii(line) for line in reports.lines],
        progress and replace(progress, unit=in_ascii(progress.unit)),
        [_plain(publication) for publication in reports.publications],
    )
    yield Reports([_REFUSED], None, [_bare(publication) for publication in reports.publications])


def plainer_closings(closing: Closing) -> Iterator[Closing]:
    """Yield what to write in the place of an end that was refused, and in the place of that."""
    failure = closing.failure
    plain, bare = plainer_reports(Reports(closing.lines, closing.progress, closing.publications))
    yield replace(
        closing,
        name=in_ascii(closing.name),
        failure=failure and Failure(type=in_ascii(failure.type), message=in_ascii(failure.message)),
        lines=plain.lines,
        progress=plain.progress,
        publications=plain.publications,
    )
    yield replace(
        closing,
        name=in_ascii(closing.name),
        failure=failure and Failure(type=in_ascii(failure.type), message=_REFUSED),
        lines=bare.lines if closing.lines else (),
        progress=None,
        publications=bare.publications,
    )


def _plain(publication: Publication) -> Publication:
    return replace(
        publication, name=in_ascii(publication.name), queue=publication.queue and in_ascii(publication.queue)
    )


def _bare(publication: Publication) -> Publication:
    return replace(_plain(publication), queue=None, parent_id=None, eta=None, message=None)
