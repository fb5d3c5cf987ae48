"""The jobs of the demo: what is started, what is asked, and how each of them should end."""

from __future__ import annotations

import dataclasses
import urllib.parse
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from qhana_taskstate import ProcessingTask, taskstate
from qhana_taskstate.states import TaskStatus

from . import plugin

#: Answer to the question for k where nobody is there to give one.
DEFAULT_K = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One started job.

    Attributes:
        task_id: Id of its `ProcessingTask`.
        expected: How it should end.
        source: What webhooks name as their source.
    """

    task_id: int
    expected: TaskStatus
    source: str

    def load(self) -> ProcessingTask:
        """Read its row anew."""
        task = ProcessingTask.get_by_id(self.task_id)
        if task is None:
            raise LookupError(f"the row of task {self.task_id} was deleted while it ran")
        return task

    def is_as_expected(self, task: ProcessingTask) -> bool:
        """Tell whether it ended, and as it should."""
        return task.is_finished and task.is_ok == (self.expected is TaskStatus.SUCCESS)


def shipped_data_set() -> str:
    """Return the path of the data set that comes with the package."""
    return str(files("qhana_taskstate.demo") / "data" / "penguins.csv")


def start_jobs(sources: Sequence[str], folder: Path, webhook_href: str) -> list[Job]:
    """Start two jobs for each source, and one that fails on purpose.

    Args:
        sources: Paths or URLs of CSV files, at least one.
        folder: Where the outputs go.
        webhook_href: Is subscribed to each of them.

    Raises:
        BrokerUnavailableError: If the broker cannot be reached.
        WebhookTargetError: If webhooks may not go there.
    """
    jobs: list[Job] = []

    def start(work: Any, task_name: str, expected: TaskStatus = TaskStatus.SUCCESS) -> None:
        task = taskstate.start(work, task_name=task_name, webhook_href=webhook_href)
        # What the page shows of the task to programs.
        source = f"{str(taskstate.settings.public_url).rstrip('/')}/tasks/{task.id}/"
        jobs.append(Job(task_id=task.id, expected=expected, source=source))

    for number, source in enumerate(map(_absolute, sources), 1):
        outputs = str(folder / "outputs" / str(number))
        start(plugin.clustering(source, outputs), f"cluster {_name(source)}")
        start(plugin.summarise.s(source, outputs), f"summarise {_name(source)}")
    start(plugin.fail_on_purpose.s(_absolute(sources[0])), "fail on purpose", TaskStatus.ERROR)
    return jobs


def answer(task_id: int, k: int) -> None:
    """Give the answer that a job waits for, and let it go on.

    Raises:
        StepNotOpenError: If it was given already.
        TaskFinishedError: If the job has ended.
    """
    taskstate.start(plugin.clustering_with(k), task=task_id, answers=plugin.STEP)


def cancel(jobs: Sequence[Job], reason: str) -> None:
    """End the jobs that have not ended yet."""
    for job in jobs:
        taskstate.cancel(job.task_id, reason=reason)


def _absolute(source: str) -> str:
    return source if urllib.parse.urlsplit(source).scheme in {"http", "https"} else str(Path(source).absolute())


def _name(source: str) -> str:
    return Path(urllib.parse.urlsplit(source).path).name or source
