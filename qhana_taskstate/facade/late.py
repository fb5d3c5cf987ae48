"""What a `TaskState` needs only once it is used: each module is imported when the first attribute asks for it.

A module of plugin tasks, a web host and the command line import the package for its names; what records, publishes,
delivers and looks after takes about as long to import as those names, and waits until an app is tracked.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .. import wiring as wiring
    from ..broker import revoking as revoking
    from ..database import schema as schema
    from ..reading import resource as resource
    from ..recording import by_hand as by_hand
    from ..tracking import signals as signals
    from ..tracking.submission import kept_work as kept_work
    from ..tracking.submission import on_commit as on_commit
    from ..tracking.submission import submit as submit
    from ..tracking.subscribing import subscriber as subscriber
    from ..tracking.subscribing import subscriptions as subscriptions
    from ..webhooks.waking import sender as sender

_MODULES: Final = {
    "wiring": "wiring",
    "revoking": "broker.revoking",
    "schema": "database.schema",
    "resource": "reading.resource",
    "wait": "reading.waiting.one",
    "waiters": "reading.waiting.many",
    "by_hand": "recording.by_hand",
    "signals": "tracking.signals",
    "on_commit": "tracking.submission.on_commit",
    "kept_work": "tracking.submission.kept_work",
    "submit": "tracking.submission.submit",
    "subscriber": "tracking.subscribing.subscriber",
    "sender": "webhooks.waking.sender",
    "subscriptions": "tracking.subscribing.subscriptions",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    package = __name__.removesuffix(".facade.late")
    module = globals()[name] = importlib.import_module(f"{package}.{_MODULES[name]}")
    return module
