"""Every way in which settings come into Celery's configuration, known and unknown ones."""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import VERSION, Celery

from qhana_taskstate import SettingsError, TaskState

pytestmark = pytest.mark.versions

URL = "sqlite:///from_the_configuration.db"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Make an importable settings module of the given names; returns its name."""

    def make(**names: Any) -> str:
        made = types.ModuleType("settings_of_the_test")
        made.__dict__.update(names)
        monkeypatch.setitem(sys.modules, made.__name__, made)
        return made.__name__

    return make


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app that nothing was read of."""
    made = Celery("configured", set_as_current=False)
    yield made
    made.close()


class Holder:
    """An object with settings, in the way of Django's."""

    def __init__(self, **names: Any) -> None:
        self.__dict__.update(names)


#: Namespace and spelling of a setting in a settings module.
WAYS = [
    (None, "taskstate_{}"),
    (None, "TASKSTATE_{}"),
    (None, "CELERY_TASKSTATE_{}"),
    ("CELERY", "CELERY_TASKSTATE_{}"),
    ("CELERY", "TASKSTATE_{}"),
    ("celery", "celery_taskstate_{}"),
    ("CELERY_", "CELERY_TASKSTATE_{}"),
    ("QUEUE", "QUEUE_TASKSTATE_{}"),
]


def spelt(way: str, name: str) -> str:
    return way.format(name if way.islower() else name.upper())


@pytest.mark.parametrize("when", ["before", "after", "between"])
@pytest.mark.parametrize("source", ["name", "object", "dict"])
@pytest.mark.parametrize(("namespace", "way"), WAYS)
def test_settings_of_a_module_arrive(
    app: Celery, module: Callable[..., str], namespace: str | None, way: str, source: str, when: str
) -> None:
    given = {spelt(way, "database_url"): URL, spelt(way, "heartbeat_seconds"): 3, "SECRET_KEY": "of the host"}
    sources: dict[str, Any] = {"name": module(**given), "object": Holder(**given), "dict": given}
    state = TaskState(app) if when == "after" else None
    if when == "between":
        _ = app.conf.task_acks_late
    app.config_from_object(sources[source], namespace=namespace)

    settings = (state or TaskState(app)).settings

    assert (settings.database_url, settings.heartbeat_seconds) == (URL, 3)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("namespace", "way"), WAYS)
def test_unknown_settings_of_a_module_are_named(
    app: Celery, module: Callable[..., str], namespace: str | None, way: str, when: str
) -> None:
    name = spelt(way, "databse_url")
    state = TaskState(app) if when == "after" else None
    app.config_from_object(module(**{name: URL}), namespace=namespace)

    with pytest.raises(SettingsError, match=f"{name}.*taskstate_database_url"):
        _ = (state or TaskState(app)).settings


@pytest.mark.parametrize(
    "put",
    [
        lambda app, name, value: setattr(app.conf, name, value),
        lambda app, name, value: app.conf.update({name: value}),
        lambda app, name, value: app.conf.update(**{name: value}),
        lambda app, name, value: app.conf.__setitem__(name, value),
        lambda app, name, value: app.add_defaults({name: value}),
        lambda app, name, value: app.add_defaults(lambda: {name: value}),
    ],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_settings_of_app_conf_arrive_and_unknown_ones_are_named(
    put: Callable[[Celery, str, object], None], when: str, module: Callable[..., str]
) -> None:
    for name, error in (("taskstate_database_url", False), ("taskstate_databse_url", True)):
        app = Celery("configured", set_as_current=False)
        app.config_from_object(module(CELERY_TASK_ACKS_LATE=True), namespace="CELERY")
        state = TaskState(app) if when == "after" else None
        put(app, name, URL)
        if error:
            with pytest.raises(SettingsError, match=f"{name}.*taskstate_database_url"):
                _ = (state or TaskState(app)).settings
        else:
            assert (state or TaskState(app)).settings.database_url == URL
        app.close()


def test_app_conf_wins_over_the_module_and_the_name_with_the_namespace_over_the_bare_one(
    app: Celery, module: Callable[..., str]
) -> None:
    app.config_from_object(
        module(
            CELERY_TASKSTATE_HEARTBEAT_SECONDS=3,
            CELERY_TASKSTATE_PUBLIC_URL="https://m",
            TASKSTATE_PUBLIC_URL="https://b",
        ),
        namespace="CELERY",
    )
    app.conf.taskstate_heartbeat_seconds = 4

    settings = TaskState(app).settings

    assert (settings.heartbeat_seconds, settings.public_url) == (4, "https://m")


def test_a_secret_of_the_module_is_not_shown(app: Celery, module: Callable[..., str]) -> None:
    app.config_from_object(module(CELERY_TASKSTATE_WEBHOOK_SECRETS=["whsec_geheim"]), namespace="CELERY")

    with pytest.raises(SettingsError, match="CELERY_TASKSTATE_WEBHOOK_SECRETS") as seen:
        _ = TaskState(app).settings

    assert "geheim" not in str(seen.value)


@pytest.mark.parametrize("namespace", [None, "CELERY"])
def test_settings_that_come_after_the_first_use_are_named_in_a_warning(
    app: Celery, module: Callable[..., str], namespace: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    state = TaskState(app, database_url="sqlite://")
    assert state.settings.public_url is None

    name = f"{namespace + '_' if namespace else ''}TASKSTATE_PUBLIC_URL"
    app.config_from_object(module(**{name: "https://late.example"}), namespace=namespace, force=True)
    app.conf.get("taskstate_public_url")

    assert "taskstate_public_url came after the settings were first used" in caplog.text
    assert state.settings.public_url is None
    state.init_app(app)
    assert state.settings.public_url == "https://late.example"


def test_a_configuration_that_is_read_again_unchanged_is_no_warning(
    app: Celery, module: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    names = {"TASKSTATE_PUBLIC_URL": "https://p.example", "TASKSTATE_DATABASE_URL": "sqlite://"}
    app.config_from_object(module(**names))
    state = TaskState(app)
    assert state.settings.public_url == "https://p.example"

    app.config_from_object(module(**names), force=True)
    app.conf.get("taskstate_public_url")

    assert "first used" not in caplog.text


LATE = [
    lambda app, name, value: setattr(app.conf, name, value),
    lambda app, name, value: app.conf.__setitem__(name, value),
    lambda app, name, value: app.conf.update({name: value}),
    lambda app, name, value: app.conf.update(**{name: value}),
    lambda app, name, value: app.conf.setdefault(name, value),
    lambda app, name, value: app.add_defaults({name: value}),
]


@pytest.mark.parametrize("name", ["taskstate_public_url", "TASKSTATE_PUBLIC_URL", "CELERY_TASKSTATE_PUBLIC_URL"])
@pytest.mark.parametrize("put", LATE)
def test_setting_that_is_set_after_the_first_use_is_named_in_a_warning(
    app: Celery, put: Callable[[Celery, str, object], None], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    state = TaskState(app, database_url="sqlite://")
    assert state.settings.public_url is None

    put(app, name, "https://late.example")
    put(app, "task_acks_late_of_ours", True)

    assert caplog.text.count("taskstate_public_url came after the settings were first used") == 1
    state.init_app(app)
    assert str(state.settings.public_url) == "https://late.example"
    put(app, name, "https://late.example")
    assert caplog.text.count("first used") == 1
    assert app.conf.task_acks_late_of_ours is True


@pytest.mark.parametrize("put", LATE)
@pytest.mark.parametrize(
    ("name", "value"), [("taskstate_databse_url", URL), ("taskstate_lost_after_seconds", "soon")], ids=["name", "value"]
)
def test_wrong_setting_after_the_first_use_is_an_error_where_it_is_set_and_leaves_nothing(
    app: Celery, put: Callable[[Celery, str, object], None], name: str, value: str
) -> None:
    state = TaskState(app, database_url="sqlite://")
    assert state.settings.public_url is None

    with pytest.raises(SettingsError, match=name):
        put(app, name, value)

    assert name not in app.conf
    state.init_app(app)
    assert state.settings.public_url is None


def test_configuration_that_is_watched_can_be_copied_and_its_app_pickled(app: Celery) -> None:
    state = TaskState(app, database_url="sqlite://")
    assert state.settings.public_url is None
    app.conf.task_acks_late = True
    if VERSION >= (5, 7):
        # The copy of a configuration of Celery 5.5 has no value, ours or not.
        assert app.conf.copy().task_acks_late is True
    assert pickle.loads(pickle.dumps(app)).conf.task_acks_late is True  # noqa: S301  (ours)


def test_misspelt_setting_of_a_module_that_comes_after_the_first_use_is_named(
    app: Celery, module: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    state = TaskState(app, database_url="sqlite://")
    assert state.settings.public_url is None
    app.config_from_object(module(TASKSTATE_PUBLIC_ULR="https://x"), force=True)
    app.conf.get("task_acks_late")
    assert "unknown setting 'TASKSTATE_PUBLIC_ULR'" in caplog.text
