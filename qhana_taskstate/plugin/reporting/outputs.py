"""`add_output`: registers a file that a task put out."""

from __future__ import annotations

import mimetypes
import secrets
from pathlib import Path

from ...context.current import current_execution
from ...database.sessions.current import current_session
from ...errors import NotInExecutionError, TaskNotFoundError
from ...models.file import TaskFile
from ...models.task import ProcessingTask

#: What a TaskFile says of a file on the file system that server and workers share.
LOCAL_PROVIDER = "local_filesystem"


def add_output(path: str | Path, *, file_type: str, mimetype: str | None = None, name: str | None = None) -> TaskFile:
    """Register a local file as an output of the running execution's task, in the current session.

    Commits: no; the session of a plugin task is committed when its function returns.

    Args:
        path: The file; must exist. Its absolute path is stored, so that server and workers must share it.
        file_type: QHAna's type of the data, for example "entity/label".
        mimetype: Type of the format; None guesses from the name.
        name: Name shown to people; None takes the name of the file.

    Returns:
        The new `TaskFile` with a random security tag.

    Raises:
        FileNotFoundError: If there is no such file.
        NotInExecutionError: If called outside an execution.
        TaskNotFoundError: If the row of the task was deleted meanwhile.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise FileNotFoundError(f"no file {str(path)!r} to register as an output; write it first")
    execution = current_execution()
    if execution is None:
        raise NotInExecutionError("add_output needs a running execution; create a TaskFile for a task by hand instead")
    task = ProcessingTask.get_by_id(execution.ref.task_id)
    if task is None:
        raise TaskNotFoundError(execution.ref.task_id)
    output = TaskFile(
        task=task,
        security_tag=secrets.token_urlsafe(32),
        storage_provider=LOCAL_PROVIDER,
        file_name=name or file.name,
        file_storage_data=str(file),
        file_type=file_type,
        mimetype=mimetype or mimetypes.guess_type(file.name)[0] or "application/octet-stream",
    )
    current_session().add(output)
    return output
