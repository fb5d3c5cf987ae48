"""Where settings come from, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from qhana_taskstate import SettingsError, TaskState
from qhana_taskstate.plugin.startable import StartableTask
from qhana_taskstate.settings.keywords import SettingKeywords
from qhana_taskstate.settings.sources import read_settings
from qhana_taskstate.settings.values import Settings, setting_names


def test_defaults_are_those_of_the_contract() -> None:
    settings = Settings()

    assert settings.database_url == "sqlite:///taskstate.db"
    assert (settings.error_status, settings.wire_error_status) == ("ERROR", "FAILURE")
    assert (settings.heartbeat_seconds, settings.lost_after_seconds) == (10, 30)
    assert settings.flush_interval_seconds == 0.5
    assert settings.log_column_bytes == 60 * 1024
    assert (settings.webhook_timeout_seconds, settings.webhook_min_interval_seconds) == (15, 2)
    assert (settings.webhook_secrets, settings.webhook_allowed_networks) == ((), ())
    assert (settings.webhook_queue, settings.public_url) == (None, None)


def test_keyword_wins_over_configuration_which_wins_over_environment() -> None:
    environment = {
        "TASKSTATE_DATABASE_URL": "sqlite:///e",
        "TASKSTATE_HEARTBEAT_SECONDS": "3",
        "TASKSTATE_PUBLIC_URL": "p",
    }
    configuration = {"taskstate_database_url": "sqlite:///c", "taskstate_heartbeat_seconds": 4, "task_acks_late": True}

    settings = read_settings({"database_url": "sqlite:///k"}, configuration, environment)

    assert (settings.database_url, settings.heartbeat_seconds, settings.public_url) == ("sqlite:///k", 4, "p")


def test_file_of_the_environment_holds_a_secret(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql://u:pw@h/d\n")

    assert read_settings({}, {}, {"TASKSTATE_DATABASE_URL_FILE": str(secret)}).database_url == "postgresql://u:pw@h/d"
    with pytest.raises(SettingsError, match="TASKSTATE_DATABASE_URL_FILE"):
        read_settings({}, {}, {"TASKSTATE_DATABASE_URL_FILE": str(tmp_path / "none")})


def test_unknown_environment_names_are_ignored_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    environment = {
        "TASKSTATE_WHATEVER": "1",
        "TASKSTATE_DATABSE_URL": "sqlite://",
        "OTHER": "2",
        "TASKSTATE_TESTING_X": "3",
    }

    assert read_settings({}, {}, environment) == Settings()

    assert caplog.messages == [
        "TASKSTATE_DATABSE_URL in the environment names no setting; is TASKSTATE_DATABASE_URL meant?",
        "TASKSTATE_WHATEVER in the environment names no setting",
    ]


@pytest.mark.parametrize("place", ["keyword", "configuration"])
def test_unknown_setting_is_an_error_that_names_it(place: str) -> None:
    keywords = {"databse_url": "x"} if place == "keyword" else {}
    configuration = {"taskstate_databse_url": "x"} if place == "configuration" else {}

    with pytest.raises(SettingsError, match=r"databse_url.*taskstate_database_url"):
        read_settings(keywords, configuration)


def test_unknown_keyword_of_taskstate_is_refused_at_once() -> None:
    with pytest.raises(SettingsError, match="colour"):
        TaskState(colour="red")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", ""),
        ("error_status", "BROKEN"),
        ("heartbeat_seconds", 0),
        ("lost_after_seconds", "soon"),
        ("flush_interval_seconds", float("nan")),
        ("log_column_bytes", 1.5),
        ("canvas_progress", "perhaps"),
        ("capture_log_level", "LOUD"),
        ("webhook_retry_schedule", [1, -1]),
        ("webhook_secrets", 3),
        ("max_redeliveries", True),
    ],
)
def test_value_that_makes_no_sense_is_an_error_that_names_the_setting(name: str, value: object) -> None:
    with pytest.raises(SettingsError, match=name):
        read_settings({}, {f"taskstate_{name}": value})


def test_secret_value_is_shown_neither_in_an_error_nor_in_a_repr() -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({"webhook_secrets": [b"whsec_hidden"]}, {})
    assert "hidden" not in str(caught.value)
    assert "hidden" not in repr(Settings(database_url="postgresql://u:hidden@h/d", webhook_secrets=("hidden",)))


def test_lists_of_the_environment_are_separated_by_commas_or_json() -> None:
    comma = read_settings({}, {}, {"TASKSTATE_WEBHOOK_ALLOWED_NETWORKS": "10.0.0.0/8, worker"})
    json = read_settings({}, {}, {"TASKSTATE_WEBHOOK_ALLOWED_NETWORKS": '["10.0.0.0/8", "worker"]'})

    assert comma.webhook_allowed_networks == json.webhook_allowed_networks == ("10.0.0.0/8", "worker")


def test_keywords_that_type_checkers_know_are_the_settings() -> None:
    assert set(SettingKeywords.__annotations__) == set(setting_names())


def test_type_of_plugin_tasks_can_stand_in_annotations_at_run_time() -> None:
    assert StartableTask[[int], str] is StartableTask
