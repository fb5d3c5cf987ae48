"""Watches Celery's configuration for settings of ours that come after they were first used."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Final

from ..settings.sources import configured_name
from ..settings.values import PREFIX

#: Called with the names of settings that were set; what it raises reaches who sets them, and undoes it.
Watcher = Callable[[set[str]], None]

#: Where a configuration keeps its watchers; no name of a setting.
_WATCHERS: Final = "qhana_taskstate watchers"


def watch(conf: Any, owner: object, watcher: Watcher) -> None:
    """Let somebody know when settings of ours are set in a configuration.

    Args:
        conf: `app.conf`, which is another object after the app was configured anew.
        owner: Who wants to know; the same one again takes the place of itself.
        watcher: Called.
    """
    if _WATCHERS not in conf.__dict__:
        # Its attributes are items.
        object.__setattr__(conf, "__class__", _watched(conf.__class__))
    conf.__dict__.setdefault(_WATCHERS, {})[id(owner)] = watcher


@functools.cache
def _watched(kind: Any) -> type:
    """Return the class of a configuration that tells of all that is set; its own tells of `update` alone.

    With a second base it could not be given to an object that is there (celery 5.5 to 5.7, Python 3.11 to 3.13).
    """

    def set_item(conf: Any, key: Any, value: Any) -> None:
        _then_tell(conf, [key], lambda: kind.__setitem__(conf, key, value))

    def update(conf: Any, *args: Any, **kwargs: Any) -> Any:
        given = dict(*args, **kwargs)
        return _then_tell(conf, given, lambda: kind.update(conf, given))

    def add_defaults(conf: Any, defaults: Any) -> None:
        # What an app has set already wins over them, so that they are taken as they are or not at all.
        given = dict(defaults)
        _then_tell(
            conf,
            given,
            lambda: kind.add_defaults(conf, given),
            undo=lambda: (conf.maps.remove(given), conf.defaults.remove(given)),
        )

    members = {
        "__module__": kind.__module__,
        "__doc__": kind.__doc__,
        "__setitem__": set_item,
        "update": update,
        "add_defaults": add_defaults,
    }
    return type(kind.__name__, (kind,), members)


def _then_tell(
    conf: Any, keys: Iterable[Any], change: Callable[[], Any], undo: Callable[[], object] = lambda: None
) -> Any:
    ours = [key for key in keys if isinstance(key, str) and configured_name(key, conf.prefix) is not None]
    before = {key: conf.changes[key] for key in ours if key in conf.changes}
    result = change()
    if not ours:
        return result
    names = {f"{PREFIX}{configured_name(key, conf.prefix)}" for key in ours}
    try:
        for watcher in list(conf.__dict__.get(_WATCHERS, {}).values()):
            watcher(names)
    except BaseException:
        undo()
        for key in ours:
            conf.changes.pop(key, None)
        conf.changes.update(before)
        raise
    return result
