"""The one call in the host's application factory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, Unpack

from celery import Celery
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from .. import registry
from ..database.schema import VERSION_TABLE
from ..facade import TaskState
from ..settings.configuration import configured
from ..settings.keywords import SettingKeywords
from ..settings.sources import configured_name
from ..settings.values import ENVIRONMENT_PREFIX
from ..upkeep.pruning import OutputsHook
from . import classes, migrations, notices, schema
from .replacing import add_missing_tasks, replace_tasks

#: What the readers of the runner's tasks need, and what its plugins count on; a host may say otherwise.
DEFAULTS: Final[Mapping[str, Any]] = {
    "track": ("db_id",),
    "db_id_finishes": False,
    "error_status": "FAILURE",
    # The runner, its backend and its plugins call each other on one machine or in one network. Not the link-local
    # addresses, where clouds keep their secrets.
    "webhook_allowed_networks": ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
}


class HostedTaskState(TaskState):
    """The `TaskState` of a host, whose migrations make the runner's tables."""

    #: The host's Flask app.
    flask_app: Flask

    def upgrade(self) -> None:
        """Bring the schema up to date: the host's own migrations first if the database is empty, then ours.

        Raises:
            DatabaseUnavailableError: If the database cannot be reached.
            SchemaError: If the host's migrations are not found from here.
        """
        migrations.upgrade_empty(self.flask_app, self.database)
        super().upgrade()


def install(
    app: Flask,
    celery: Celery,
    db: SQLAlchemy,
    *,
    environment: Mapping[str, str] | None = os.environ,
    on_outputs_removed: OutputsHook | None = None,
    **settings: Unpack[SettingKeywords],
) -> TaskState:
    """Let a plugin runner keep its task states with this package, without a change to its plugins.

    To be called in the application factory, after Celery was configured and `db.init_app(app)` was called, and before
    plugins are loaded. Twice in a process is fine; the newest app is the one whose database is used.

    Our models take the place of the host's in its modules, registry and metadata; its tasks with a parameter `db_id`
    are tracked; `add_step`, `save_task_result` and `save_task_error` are ours; subscribers are told by our deliveries.

    Args:
        app: The Flask app.
        celery: The Celery app.
        db: The Flask-SQLAlchemy of the models.
        environment: Where `TASKSTATE_…` names are read from; None reads none.
        on_outputs_removed: As for `TaskState`.
        settings: As for `TaskState`. Beside its defaults: `track="db_id"`, `db_id_finishes=False`,
            `error_status="FAILURE"`, and webhooks may go to private addresses and to this machine.

    Returns:
        The `TaskState`. Its session is `db.session`, its engine that of the app.

    Raises:
        HostModelsError: If the host's models were used already.
        SettingsError: If a keyword names no setting.
    """
    model: Any = db.Model
    classes.take_over(model.registry, db.metadata)
    schema.listen(db.metadata)
    migrations.leave_out_ours(app, VERSION_TABLE)
    notices.take_over()
    given: Any = {**_defaults(celery, environment or {}), **settings}
    before = registry.find(celery)
    if before is not None:
        before.close()
    with app.app_context():
        engine = db.engine
    state = HostedTaskState(
        session=db.session, engine=engine, environment=environment, on_outputs_removed=on_outputs_removed, **given
    )
    state.flask_app = app
    # First: what is selected has its body.
    replace_tasks(celery)
    if celery.finalized:  # type: ignore[attr-defined]  # not in the stubs
        add_missing_tasks(celery)
    else:
        # Twice is once: the connection has an identity.
        celery.on_after_finalize.connect(_on_finalized, weak=False, dispatch_uid="qhana_taskstate.qhana")
    state.init_app(celery)
    return state


def _on_finalized(sender: Celery, **_: Any) -> None:
    add_missing_tasks(sender)
    notices.take_over()


def _defaults(celery: Celery, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return our defaults of the settings that the host's configuration says nothing of."""
    # Until something is looked up, `app.conf` is a promise of the configuration, without parts (celery 5.5 to 5.7).
    celery.conf.get(ENVIRONMENT_PREFIX)
    namespace: str | None = celery.namespace  # type: ignore[attr-defined]  # not in the stubs
    said = {configured_name(key, namespace) for key in configured(celery.conf.maps or (), namespace)}
    said |= {name.removeprefix(ENVIRONMENT_PREFIX).lower().removesuffix("_file") for name in environment}
    return {name: value for name, value in DEFAULTS.items() if name not in said}
