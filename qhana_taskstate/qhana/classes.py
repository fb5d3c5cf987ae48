"""Puts our models where those of the host are: its modules, its registry, its metadata."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Final

from sqlalchemy import MetaData, Table
from sqlalchemy.orm import Mapper, clsregistry, registry

from ..database.migrations.whole_metadata import metadata as our_metadata
from ..errors import HostModelsError
from ..models.base import Base
from ..models.file import TaskFile
from ..models.link import TaskLink
from ..models.step import Step
from ..models.subscription import TaskUpdateSubscription, WebhookRef
from ..models.task import ProcessingTask

#: Ours, by the names of their tables, which are those of the host's too.
OURS: Final[Mapping[str, type[Base]]] = {
    made.__name__: made for made in (ProcessingTask, Step, TaskFile, TaskLink, TaskUpdateSubscription)
}

# SQLAlchemy 2.1 gives both a name that begins with an underscore.
_add_class: Any = getattr(clsregistry, "add_class", None) or getattr(clsregistry, "_add_class", None)


def take_over(host: registry, metadata: MetaData) -> None:
    """Put our models in the place of the host's. Twice is once.

    The host's other models may name ours as text, in `ForeignKey` and `relationship`, or refer to the classes whose
    place they take.

    Args:
        host: The registry of the host's models.
        metadata: The host's metadata; our tables become some of its tables.

    Raises:
        HostModelsError: If the host's models were used already, so that others are bound to those that are to go.
    """
    replaced = _replaced(host)
    for mapper in replaced:
        _refuse_bound(host, mapper, replaced)
    for mapper in replaced:
        _unmap(host, mapper)
    _exchange_tables(metadata)
    modules = {mapper.class_.__module__ for mapper in replaced}
    for name, ours in OURS.items():
        if name not in host._class_registry:
            _add_class(name, ours, host._class_registry)
        for module in modules:
            _add_path(host, module, name, ours)
    _rebind({mapper.class_: OURS[mapper.class_.__name__] for mapper in replaced}, modules)


def _replaced(host: registry) -> list[Mapper[Any]]:
    """Return the host's mappers of the tables that ours are mapped on too."""
    found = []
    for mapper in host.mappers:
        table = mapper.local_table
        if isinstance(table, Table) and table.name in OURS and table.metadata is not our_metadata:
            if mapper.class_.__name__ not in OURS:
                raise HostModelsError(
                    f"{mapper.class_.__module__}.{mapper.class_.__name__} is mapped on the table {table.name!r}, "
                    f"which qhana_taskstate maps too; use its class {table.name} instead"
                )
            found.append(mapper)
    return found


def _refuse_bound(host: registry, replaced: Mapper[Any], going: list[Mapper[Any]]) -> None:
    for other in host.mappers:
        if other in going:
            continue
        bound = other.configured and any(relation.mapper is replaced for relation in other.relationships)
        if bound or other.inherits is replaced:
            raise HostModelsError(
                f"{other.class_.__name__} is bound to the host's own {replaced.class_.__name__} already; call install "
                "in the application factory, before any model is used, and derive no model from it"
            )


def _unmap(host: registry, mapper: Mapper[Any]) -> None:
    # What `registry.dispose` does with all of them (SQLAlchemy 2.0, 2.1).
    manager: Any = mapper.class_manager
    host._dispose_manager_and_mapper(manager)
    host._managers.pop(manager, None)


def _exchange_tables(metadata: MetaData) -> None:
    gone = []
    for table in our_metadata.tables.values():
        standing = metadata.tables.get(table.name)
        if standing is table:
            continue
        if standing is not None:
            gone.append(standing)
            metadata.remove(standing)
        metadata._add_table(table.name, table.schema, table)
    keys: list[Any] = [key for table in metadata.tables.values() for key in table.foreign_keys]
    if gone:
        for key in keys:
            # Not `key.column`, which raises where the other table is still to come.
            target = vars(key).get("column")
            if target is not None and any(target.table is standing for standing in gone):
                column = our_metadata.tables[target.table.name].c[target.name]
                if not isinstance(key._colspec, str):
                    key._colspec = f"{column.table.name}.{column.name}"
                vars(key)["column"] = column


def _add_path(host: registry, module: str, name: str, ours: type[Base]) -> None:
    """Let texts in `relationship` find our class under the host's module too: `"host.models.ProcessingTask"`."""
    root: Any = host._class_registry["_sa_module_registry"]
    tokens = module.split(".")
    for beginning in range(len(tokens)):
        found = root
        for token in tokens[beginning:]:
            found = found.get_module(token)
        found.add_class(name, ours)


def _rebind(new: Mapping[type[Any], type[Base]], models: set[str]) -> None:
    """Let every loaded module that has one of the host's classes have ours."""
    exchanged: dict[int, Any] = {id(old): ours for old, ours in new.items()}
    for module in models:
        ref = getattr(sys.modules.get(module), WebhookRef.__name__, None)
        if isinstance(ref, type):
            exchanged[id(ref)] = WebhookRef
    for loaded in list(sys.modules.values()):
        # Not `isinstance`, which lazy modules answer by loading.
        if type(loaded) is ModuleType:
            for key, value in list(vars(loaded).items()):
                if id(value) in exchanged:
                    setattr(loaded, key, exchanged[id(value)])
