"""The JSON attribute of a mapped object, through loads, flushes and rollbacks."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import inspect
from sqlalchemy.orm import Session, object_session
from sqlalchemy.orm.attributes import flag_modified, set_committed_value

from ...json.merge import is_same, merge, to_plain
from ...json.node import to_tracked
from ...json.tree import bind, sync

_INFO: Final = "qhana_taskstate_document"
_CHANGED: Final = "qhana_taskstate_changed_documents"


class _Unset:
    """The type of the mark for "not taken"."""


_UNSET: Final = _Unset()


class Document:
    """Owner of the JSON value of one mapped object, kept for as long as the object.

    Args:
        target: The mapped object.
        key: Name of its JSON attribute.
    """

    def __init__(self, target: Any, key: str) -> None:
        self._target = target
        self._key = key
        self._tree: Any = None
        #: The value in the database that changes made since then start from.
        self._base: Any = _UNSET
        #: The value at the first change of the open transaction.
        self._original: Any = _UNSET

    @classmethod
    def of(cls, target: Any, key: str) -> Document:
        """Return the document of a mapped object, made at first use."""
        info = inspect(target).info
        document: Document | None = info.get(_INFO)
        if document is None:
            document = info[_INFO] = cls(target, key)
        return document

    @property
    def dirty(self) -> bool:
        """Whether the value of a row that exists was changed since it was last read or written."""
        return not isinstance(self._base, _Unset)

    def before_change(self) -> None:
        """Load the value if it expired, and keep it for the merge."""
        self._keep_base(getattr(self._target, self._key))

    def after_change(self) -> None:
        """Tell the session."""
        flag_modified(self._target, self._key)

    def assign(self, value: Any, old: Any) -> Any:
        """Take a new value.

        Args:
            value: Any JSON value; it is copied.
            old: The value that it replaces.

        Returns:
            What the attribute is to hold.

        Raises:
            DataValueError: If JSON cannot hold a part of it.
        """
        if value is self._tree and value is old:
            # `task.data += [1]` assigns the list that was changed.
            return value
        tree = to_tracked(value)
        self._keep_base(old)
        bind(self._tree, None)
        bind(tree, self)
        self._tree = tree
        return tree

    def loaded(self) -> None:
        """Take over a value that was just loaded into the object."""
        if self._key in self._target.__dict__:
            self._install(self._target.__dict__[self._key])
        self._base = _UNSET

    def merge(self, theirs: Any) -> None:
        """Put the changes of this object on top of the value in its locked row, ready to be written.

        Args:
            theirs: The value in the row.
        """
        if isinstance(self._base, _Unset):
            return
        mine = to_plain(self._target.__dict__[self._key])
        if not is_same(self._base, theirs):
            mine = merge(self._base, mine, theirs)
            self._install(mine)
        self._base = _UNSET
        if is_same(mine, theirs):
            set_committed_value(self._target, self._key, self._target.__dict__[self._key])
        else:
            flag_modified(self._target, self._key)

    def _install(self, plain: Any) -> None:
        if plain is not self._tree:
            self._tree = sync(self._tree, plain)
            bind(self._tree, self)
        self._target.__dict__[self._key] = self._tree

    def _keep_base(self, value: Any) -> None:
        # A detached object may be attached again.
        if not inspect(self._target).has_identity or self.dirty:
            return
        self._base = to_plain(value)
        session = object_session(self._target)
        if session is not None and isinstance(self._original, _Unset):
            self._original = self._base
            session.info.setdefault(_CHANGED, set()).add(self)

    def committed(self) -> None:
        """Note that what was written stays."""
        self._original = _UNSET

    def rolled_back(self, *, wholly: bool) -> None:
        """Forget changes that were rolled back.

        References into the tree then show what the database has: at once if all of the transaction was rolled
        back, otherwise once the attribute is read again.
        """
        state = inspect(self._target)
        if not state.persistent or self._key in self._target.__dict__:
            return
        self._base = _UNSET
        if wholly and not isinstance(self._original, _Unset):
            self._tree = sync(self._tree, self._original)
            bind(self._tree, self)
            self._original = _UNSET


def committed(session: Session) -> None:
    """Tell the changed documents of a session that its transaction was committed."""
    for document in session.info.pop(_CHANGED, ()):
        document.committed()


def rolled_back(session: Session, *, wholly: bool) -> None:
    """Tell the changed documents of a session that its transaction, or a savepoint, was rolled back."""
    for document in list(session.info.get(_CHANGED, ())):
        document.rolled_back(wholly=wholly)
    if wholly:
        session.info.pop(_CHANGED, None)
