"""The rows as Prometheus metrics."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from qhana_taskstate import ProcessingTask, TaskState
from qhana_taskstate.web.api import metrics
from tests.apps import jobs


def samples_of(client: FlaskClient) -> dict[tuple[str, ...], float]:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_tasks_steps_and_durations_are_counted(client: FlaskClient, state: TaskState) -> None:
    state.start(jobs.say.s(), task_name="saying")
    state.start(jobs.fail.s(), task_name="saying")
    waiting = ProcessingTask("dialogue")
    waiting.save()
    waiting.add_next_step("http://p/", "http://p/", "k", commit=True)
    found = samples_of(client)
    assert found["taskstate_tasks", "saying", "SUCCESS"] == 1
    assert found["taskstate_tasks", "saying", "ERROR"] == 1
    assert found["taskstate_tasks", "dialogue", "PENDING"] == 1
    assert found["taskstate_open_steps",] == 1
    assert found["taskstate_duration_seconds_count", "saying", "SUCCESS"] == 1
    assert found["taskstate_lost_executions",] == 0
    assert found["taskstate_deliveries_pending",] == 0
    assert found["taskstate_deliveries_dead",] == 0


@pytest.mark.databases("sqlite")
def test_the_age_of_a_queue_is_that_of_its_oldest_message(client: FlaskClient, state: TaskState) -> None:
    state.app.conf.task_always_eager = False
    state.start(jobs.say.s(), queue="slow")
    found = samples_of(client)
    assert found["taskstate_open_executions", "slow", "QUEUED"] == 1
    assert 0 <= found["taskstate_queue_age_seconds", "slow"] < 60


@pytest.mark.databases("sqlite")
def test_without_the_extra_it_says_what_to_install(
    client: FlaskClient, state: TaskState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "prometheus_client", None)
    answer = client.get("/metrics")
    assert answer.status_code == 501
    assert "qhana_taskstate[metrics]" in answer.get_json()["message"]
