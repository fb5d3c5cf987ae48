"""Which tasks the setting `track` means."""

from __future__ import annotations

import pytest

from qhana_taskstate import SettingsError
from qhana_taskstate.settings.sources import read_settings
from qhana_taskstate.tracking.selection import is_selected

NAMES = ("reports.a", "reports.ping", "mails.send", "celery.chord", "celery.backend_cleanup", "qhana_taskstate.deliver")


@pytest.mark.parametrize(
    ("track", "selected"),
    [
        ("none", ()),
        (None, ()),
        ([], ()),
        ("all", NAMES[:3]),
        (["all", "!mails.*"], NAMES[:2]),
        ("reports.*,!reports.ping", ("reports.a",)),
        ('["reports.*", "!reports.ping"]', ("reports.a",)),
        (["!reports.ping", "reports.*"], ("reports.a",)),
        (["!reports.ping"], ("reports.a", "mails.send")),
        (["mails.send"], ("mails.send",)),
        (["REPORTS.*"], ()),
        (["*"], NAMES[:3]),
        (["celery.*", "qhana_taskstate.*"], ()),
    ],
)
def test_names_and_wildcards_select_tasks_but_never_those_of_celery_or_ours(
    track: object, selected: tuple[str, ...]
) -> None:
    settings = read_settings({"track": track}, {})
    assert tuple(name for name in NAMES if is_selected(name, settings.track)) == selected


@pytest.mark.parametrize(
    ("track", "takes_id", "selected"),
    [
        ("db_id", True, True),
        ("db_id", False, False),
        (["db_id", "!mails.*"], True, False),
        (["db_id", "mails.*"], False, True),
        (["all", "!db_id"], True, False),
        (["all", "!db_id"], False, True),
    ],
)
def test_parameter_db_id_selects_tasks(track: object, takes_id: bool, selected: bool) -> None:
    settings = read_settings({"track": track}, {})
    assert is_selected("mails.send", settings.track, takes_id=takes_id) is selected


@pytest.mark.parametrize("track", [True, 3, ["x", 3], "!", ["x", ""], ["none", "x"], {"x": 1}, ["!!x"]])
def test_what_names_no_tasks_is_refused(track: object) -> None:
    with pytest.raises(SettingsError, match="track"):
        read_settings({"track": track}, {})


def test_environment_selects_too() -> None:
    found = read_settings({}, {}, {"TASKSTATE_TRACK": "reports.*, !reports.ping"})
    assert found.track == (
        "reports.*",
        "!reports.ping",
    )
