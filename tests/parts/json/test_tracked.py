"""The tracked JSON containers behave like dict and list, miss no change, and let nothing in that JSON cannot hold."""

from __future__ import annotations

import bisect
import copy
import enum
import gc
import heapq
import json
import pickle
import random
import sys
import weakref
from collections import Counter, OrderedDict, UserDict, defaultdict, namedtuple
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qhana_taskstate.errors import DataValueError, TaskStateError
from qhana_taskstate.json.check import MAX_DEPTH
from qhana_taskstate.json.merge import is_same, merge, to_plain
from qhana_taskstate.json.node import to_tracked, track_stored
from qhana_taskstate.json.tracked_dict import TrackedDict
from qhana_taskstate.json.tracked_list import TrackedList
from qhana_taskstate.json.tree import bind, sync

quick = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])


class RecordingOwner:
    """Counts the calls; `on_before` runs inside `before_change`."""

    def __init__(self, on_before: Callable[[], object] = lambda: None) -> None:
        self.before = 0
        self.after = 0
        self.on_before = on_before

    def before_change(self) -> None:
        self.before += 1
        self.on_before()

    def after_change(self) -> None:
        assert self.after < self.before, "a change was reported without being announced"
        self.after += 1

    def forget(self) -> None:
        self.before = self.after = 0


def owned(value: Any) -> tuple[Any, RecordingOwner]:
    tree, owner = to_tracked(value), RecordingOwner()
    bind(tree, owner)
    return tree, owner


def containers(value: Any) -> Iterator[Any]:
    """Every container of a value, outermost first."""
    if isinstance(value, dict | list):
        yield value
        for item in list(value.values() if isinstance(value, dict) else value):
            yield from containers(item)


def by_path(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every container of a value with the keys that lead to it."""
    if isinstance(value, dict | list):
        yield path, value
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from by_path(item, (*path, key))


def touch(node: Any) -> None:
    """A change that leaves everything as it is."""
    node.update() if isinstance(node, dict) else node.extend(())


def is_plain(value: Any) -> bool:
    return all(type(node) in (dict, list) for node in containers(value))


def is_tracked(value: Any) -> bool:
    return all(type(node) in (TrackedDict, TrackedList) for node in containers(value))


def assert_all_report(tree: Any, owner: RecordingOwner) -> None:
    for node in containers(tree):
        owner.forget()
        touch(node)
        assert (owner.before, owner.after) == (1, 1)


class Colour(enum.StrEnum):
    RED = "red"


class Shade(str, enum.Enum):  # noqa: UP042 - the older spelling is what many plugins have
    DARK = "dark"


class Size(enum.IntEnum):
    SMALL = 1


class Bare(enum.Enum):
    ONE = 1


class Ratio(float):
    pass


class Thing:
    pass


Point = namedtuple("Point", "x y")

# --- they are dict and list


def test_containers_are_real_dicts_and_lists() -> None:
    tree = to_tracked({"rows": [{"n": 1}], "name": "x"})
    assert isinstance(tree, dict) and isinstance(tree["rows"], list) and isinstance(tree["rows"][0], dict)
    assert tree == {"rows": [{"n": 1}], "name": "x"}
    assert json.dumps(tree) == '{"rows": [{"n": 1}], "name": "x"}'
    assert repr(tree) == "{'rows': [{'n': 1}], 'name': 'x'}"
    assert not hasattr(tree, "__dict__") and not hasattr(tree["rows"], "__dict__")


def test_deep_copies_and_pickles_are_plain_and_on_their_own() -> None:
    tree, owner = owned({"rows": [{"n": 1}]})
    for duplicate in (
        copy.deepcopy(tree),
        to_plain(tree),
        *(pickle.loads(pickle.dumps(tree, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)),  # noqa: S301
    ):
        assert duplicate == tree and is_plain(duplicate)
        duplicate["rows"][0]["n"] = 2
    assert copy.deepcopy(tree["rows"]) == [{"n": 1}] and is_plain(copy.deepcopy(tree["rows"]))
    assert tree == {"rows": [{"n": 1}]} and owner.before == 0


def test_shallow_copies_are_plain_and_share_what_they_hold() -> None:
    tree, owner = owned({"rows": [[1]]})
    for shallow in (tree.copy(), copy.copy(tree), dict(tree), tree | {}, {} | tree):
        assert type(shallow) is dict and shallow["rows"] is tree["rows"]
    rows = tree["rows"]
    for shallow in (rows.copy(), copy.copy(rows), list(rows), rows[:], rows.__add__([1]), rows * 1, 1 * rows):
        assert type(shallow) is list and shallow[0] is rows[0]
        shallow.clear()
    assert owner.before == 0
    copy.copy(rows)[0].append(2)
    assert tree == {"rows": [[1, 2]]} and owner.after == 1


def test_the_classes_can_be_called_like_dict_and_list() -> None:
    assert TrackedDict() == {} and TrackedList() == []
    assert TrackedDict({"a": []}, b={}) == {"a": [], "b": {}}
    assert TrackedDict([("a", 1)]) == TrackedDict.fromkeys("a", 1) == {"a": 1}
    assert TrackedList("ab") == ["a", "b"]
    assert is_tracked(TrackedDict({"a": [{}]})) and is_tracked(TrackedList([[{}]]))
    with pytest.raises(DataValueError):
        TrackedDict(a=set())
    with pytest.raises(DataValueError):
        TrackedList([set()])
    with pytest.raises(TypeError):
        TrackedList(5)  # type: ignore[arg-type]


def test_a_scalar_root_passes_through_every_function() -> None:
    for scalar in ("text", 1, 1.5, True, None):
        assert to_tracked(scalar) is scalar
        assert track_stored(scalar) is scalar
        assert to_plain(scalar) is scalar
        bind(scalar, RecordingOwner())
        assert sync(scalar, 2) == 2
        assert merge(0, scalar, 0) is scalar


# --- every change is noticed

DICT_CHANGES: dict[str, Callable[[Any], Any]] = {
    "__setitem__": lambda d: d.__setitem__("new", [1]),
    "__delitem__": lambda d: d.__delitem__("a"),
    "__ior__": lambda d: d.__ior__({"new": [1]}),
    "__init__": lambda d: d.__init__(new=[1]),
    "clear": lambda d: d.clear(),
    "pop": lambda d: d.pop("a"),
    "popitem": lambda d: d.popitem(),
    "setdefault": lambda d: d.setdefault("new", []),
    "update": lambda d: d.update(new=[1]),
}
LIST_CHANGES: dict[str, Callable[[Any], Any]] = {
    "__setitem__": lambda x: x.__setitem__(0, [9]),
    "__delitem__": lambda x: x.__delitem__(0),
    "__iadd__": lambda x: x.__iadd__([[9]]),
    "__imul__": lambda x: x.__imul__(2),
    "__init__": lambda x: x.__init__([9]),
    "append": lambda x: x.append([9]),
    "clear": lambda x: x.clear(),
    "extend": lambda x: x.extend([[9]]),
    "insert": lambda x: x.insert(0, [9]),
    "pop": lambda x: x.pop(),
    "remove": lambda x: x.remove([1]),
    "reverse": lambda x: x.reverse(),
    "sort": lambda x: x.sort(reverse=True),
}
OTHER_CHANGES: dict[str, Callable[[Any], Any]] = {
    "index from the end": lambda t: t["rows"].__setitem__(-1, 9),
    "slice": lambda t: t["rows"].__setitem__(slice(0, 1), [7, 8]),
    "extended slice": lambda t: t["rows"].__setitem__(slice(None, None, 2), [[7], [8]]),
    "deleted slice": lambda t: t["rows"].__delitem__(slice(0, 2)),
    "deleted extended slice": lambda t: t["rows"].__delitem__(slice(None, None, -2)),
    "pop at an index": lambda t: t["rows"].pop(0),
    "repeated to nothing": lambda t: t["rows"].__imul__(0),
    "bisect": lambda t: bisect.insort(t["rows"], [2]),
    "shuffle": lambda t: random.Random(1).shuffle(t["rows"]),  # noqa: S311
    "update from pairs": lambda t: t.update([("n", 1)]),
    "update from a mapping": lambda t: t.update(UserDict(n=1)),
    "update with a key named self": lambda t: t.update(self=1),
    "|= with pairs": lambda t: t.__ior__([("n", 1)]),
    "setdefault and append": lambda t: t.setdefault("rows", []).append(1),
    "pop with a default": lambda t: t.pop("rows", None),
    "through values()": lambda t: next(iter(t.values())).append(1),
    "through items()": lambda t: next(iter(t.items()))[1].append(1),
    "through iteration": lambda t: next(iter(t["rows"])).append(1),
    "through a slice": lambda t: t["rows"][1:][0].append(1),
    "through a shallow copy": lambda t: t.copy()["rows"].append(1),
    "sorted by a key": lambda t: t["rows"].sort(key=lambda row: -row[0]),
}


@pytest.mark.parametrize(
    ("tracked", "plain", "changes", "readers"),
    [
        (
            TrackedDict,
            dict,
            DICT_CHANGES,
            "__class_getitem__ __contains__ __doc__ __eq__ __ge__ __getattribute__ __getitem__ __gt__ __hash__ "
            "__iter__ __le__ __len__ __lt__ __ne__ __new__ __or__ __repr__ __reversed__ __ror__ __sizeof__ copy "
            "fromkeys get items keys values",
        ),
        (
            TrackedList,
            list,
            LIST_CHANGES,
            "__add__ __class_getitem__ __contains__ __doc__ __eq__ __ge__ __getattribute__ __getitem__ __gt__ "
            "__hash__ __iter__ __le__ __len__ __lt__ __mul__ __ne__ __new__ __repr__ __reversed__ __rmul__ "
            "__sizeof__ copy count index",
        ),
    ],
)
def test_every_changing_method_of_dict_and_list_is_covered(
    tracked: type, plain: type, changes: dict[str, Any], readers: str
) -> None:
    """A new method of a later Python is in neither set, and fails here until somebody has judged it."""
    assert set(changes) | set(readers.split()) == set(vars(plain))
    assert set(changes) <= set(vars(tracked))


@pytest.mark.parametrize(("tracked", "plain"), [(TrackedDict, {"a": [1]}), (TrackedList, [[1], [2]])])
def test_no_inherited_method_changes_anything(tracked: type, plain: Any) -> None:
    for name in set(dir(tracked)) - set(vars(tracked)) - {"__class__"}:
        method = getattr(tracked, name)
        if not callable(method) or (name.startswith("_") and not name.startswith("__")):
            continue
        for arguments in ((), (1,), ("a",), ([9],), ({"b": 1},), (0, 9), ("a", 9), (0, 1, 9)):
            tree, owner = owned(plain)
            try:
                method(tree, *arguments)
            except (TypeError, ValueError, KeyError, IndexError, AttributeError):
                continue
            finally:
                assert tree == plain and owner.before == 0, (name, arguments)


@pytest.mark.parametrize("name", DICT_CHANGES)
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_dict_method_is_noticed_at_any_depth(name: str, depth: int) -> None:
    expected: Any = {"a": [1]}
    DICT_CHANGES[name](expected)
    value: Any = {"a": [1]}
    for _ in range(depth):
        value = [{"deeper": value}]
    tree, owner = owned(value)
    node = tree
    for _ in range(depth):
        node = node[0]["deeper"]
    DICT_CHANGES[name](node)
    assert node == expected and is_tracked(tree)
    assert (owner.before, owner.after) == (1, 1)
    assert_all_report(tree, owner)


@pytest.mark.parametrize("name", LIST_CHANGES)
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_list_method_is_noticed_at_any_depth(name: str, depth: int) -> None:
    expected: Any = [[1], [3]]
    LIST_CHANGES[name](expected)
    value: Any = [[1], [3]]
    for _ in range(depth):
        value = {"deeper": [value]}
    tree, owner = owned(value)
    node = tree
    for _ in range(depth):
        node = node["deeper"][0]
    LIST_CHANGES[name](node)
    assert node == expected and is_tracked(tree)
    assert (owner.before, owner.after) == (1, 1)
    assert_all_report(tree, owner)


@pytest.mark.parametrize("name", OTHER_CHANGES)
def test_change_is_noticed(name: str) -> None:
    value = {"rows": [[1], [3], [5]]}
    expected = copy.deepcopy(value)
    OTHER_CHANGES[name](expected)
    tree, owner = owned(value)
    OTHER_CHANGES[name](tree)
    assert tree == expected and expected != value
    assert owner.before >= owner.after >= 1
    assert_all_report(tree, owner)


def test_change_through_an_alias_is_noticed() -> None:
    tree, owner = owned({"rows": [{"tags": ["a"]}]})
    tags = tree["rows"][0]["tags"]
    tree["other"] = 1
    tags += ["b"]
    tags.insert(0, "c")
    tags.reverse()
    assert tree["rows"] == [{"tags": ["b", "a", "c"]}]
    assert owner.after == 4


def test_alias_survives_augmented_assignment() -> None:
    tree, owner = owned({"rows": [1], "more": {"a": 1}})
    rows, more = tree["rows"], tree["more"]
    tree["rows"] += [2]
    tree["rows"] *= 2
    tree["more"] |= {"b": 2}
    assert tree["rows"] is rows and tree["more"] is more
    owner.forget()
    rows.append(3)
    more["c"] = 3
    assert owner.after == 2 and tree == {"rows": [1, 2, 1, 2, 3], "more": {"a": 1, "b": 2, "c": 3}}


def test_aliases_survive_when_items_are_rearranged_in_one_assignment() -> None:
    tree, owner = owned({"rows": [{"n": 2}, {"n": 1}, {"n": 3}], "a": [1], "b": [2]})
    rows, first = tree["rows"], tree["rows"][0]
    rows[:] = sorted(rows, key=lambda row: row["n"])
    assert rows[1] is first
    rows[:] = [row for row in rows if row["n"] > 1]
    assert rows[0] is first
    rows.sort(key=lambda row: -row["n"])
    rows.reverse()
    tree["rows"] = rows
    tree.update(tree)
    assert tree["rows"] is rows and rows[0] is first
    one, two = tree["a"], tree["b"]
    tree.update(a=two, b=one)
    assert tree["a"] is two and tree["b"] is one
    assert_all_report(tree, owner)


def test_order_of_before_and_after() -> None:
    tree = to_tracked({"rows": [1]})
    seen: list[tuple[str, Any]] = []

    class Owner:
        def before_change(self) -> None:
            seen.append(("before", to_plain(tree)))

        def after_change(self) -> None:
            seen.append(("after", to_plain(tree)))

    bind(tree, Owner())
    tree["rows"].append(2)
    tree.update(a=1, b=2)
    assert seen == [
        ("before", {"rows": [1]}),
        ("after", {"rows": [1, 2]}),
        ("before", {"rows": [1, 2]}),
        ("after", {"rows": [1, 2], "a": 1, "b": 2}),
    ]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda t: t.pop("absent"), KeyError),
        (lambda t: t.__delitem__("absent"), KeyError),
        (lambda t: t["empty"].popitem(), KeyError),
        (lambda t: t["rows"].pop(7), IndexError),
        (lambda t: t["rows"].__setitem__(7, 1), IndexError),
        (lambda t: t["rows"].__delitem__(7), IndexError),
        (lambda t: t["rows"].__setitem__(slice(None, None, 2), [1]), ValueError),
        (lambda t: t["rows"].remove("absent"), ValueError),
        (lambda t: t["rows"].sort(), TypeError),
        (lambda t: t["rows"].__imul__(1.5), TypeError),
        (lambda t: t["rows"].insert("0", 1), TypeError),
        (lambda t: t["rows"].extend(5), TypeError),
        (lambda t: t.update(5), TypeError),
        (lambda t: t.update([("a",)]), ValueError),
        (lambda t: t.pop("absent", 1, 2), TypeError),
    ],
)
def test_failed_change_raises_what_the_plain_type_raises_and_reports_nothing(
    call: Callable[[Any], Any], error: type[Exception]
) -> None:
    value = {"rows": [[3], "b", [1]], "empty": {}}
    with pytest.raises(error):
        call(copy.deepcopy(value))
    tree, owner = owned(value)
    with pytest.raises(error):
        call(tree)
    assert tree == value and owner.after == 0
    assert_all_report(tree, owner)


def test_list_changed_while_it_is_sorted_keeps_that_change() -> None:
    tree, owner = owned([[3], [1]])
    with pytest.raises(ValueError, match="modified during sort"):
        tree.sort(key=lambda item: tree.append(0) or item)
    assert tree == [[3], [1], 0, 0] and owner.after == 2
    assert_all_report(tree, owner)


def test_reading_reports_nothing() -> None:
    tree, owner = owned({"rows": [1, [2]]})
    rows = tree["rows"]
    _ = (tree.get("a"), list(tree.items()), "a" in tree, len(rows), rows.index(1), rows.count(1), rows[0:1], repr(tree))
    _ = (sorted(tree), list(reversed(rows)), rows == [1], json.dumps(tree), hash(str(tree)), bool(rows), rows < [2])
    assert owner.before == owner.after == 0
    assert tree.setdefault("rows", []) is rows and tree.pop("absent", 5) == 5
    assert owner.after == 0


# --- what goes in is copied, what goes out is cut off


def test_assigned_containers_are_copied() -> None:
    outside = {"n": [1]}
    tree, owner = owned({"a": outside})
    tree["b"] = outside
    tree.setdefault("c", outside)
    tree["list"] = [outside]
    tree["list"].append(outside)
    tree["list"].insert(0, outside)
    tree["list"] += [outside]
    tree["list"][0] = outside
    owner.forget()
    outside["n"].append(2)
    assert owner.before == 0
    one = {"n": [1]}
    assert tree == {"a": one, "b": one, "c": one, "list": [one, one, one, one]}


def test_subtree_put_at_a_second_place_is_copied() -> None:
    tree, owner = owned({"a": [1], "rows": [[0]]})
    tree["b"] = tree["a"]
    tree["d"] = {}
    tree["d"].setdefault("e", tree["a"])
    tree.setdefault("c", tree["a"])
    assert tree.pop("d") == {"e": [1]} and tree.pop("c") is not tree["a"]
    tree["rows"].append(tree["rows"][0])
    tree["rows"].extend(tree["rows"])
    tree["rows"][1:1] = tree["rows"][0:1]
    tree["c"] = tree
    tree["rows"][0].append(1)
    tree["a"].append(2)
    rows = [[0, 1], [0], [0], [0], [0]]
    assert tree == {"a": [1, 2], "b": [1], "rows": rows, "c": {"a": [1], "b": [1], "rows": [[0]] * 5}}
    assert_all_report(tree, owner)


def test_repeating_a_list_makes_separate_items() -> None:
    tree, owner = owned([[1]])
    tree *= 3
    tree[0].append(2)
    assert tree == [[1, 2], [1], [1]]
    assert_all_report(tree, owner)


def test_one_container_assigned_twice_at_once_becomes_two() -> None:
    tree, owner = owned({"rows": [[1]]})
    only = tree["rows"][0]
    tree["rows"][:] = [only, only]
    only.append(2)
    assert tree["rows"][0] is only and tree["rows"] == [[1, 2], [1]]
    tree.update(a=tree["rows"], b=tree["rows"])
    assert_all_report(tree, owner)


@pytest.mark.parametrize(
    "remove",
    [
        lambda t: t.pop("rows"),
        lambda t: t.__delitem__("rows"),
        lambda t: t.popitem(),
        lambda t: t.clear(),
        lambda t: t.__setitem__("rows", 1),
        lambda t: t.update(rows=[]),
        lambda t: t.__ior__({"rows": [[{"n": 1}]]}),
    ],
)
def test_what_is_taken_out_of_a_dict_is_cut_off(remove: Callable[[Any], Any]) -> None:
    tree, owner = owned({"rows": [[{"n": 1}]]})
    rows, inner = tree["rows"], tree["rows"][0][0]
    remove(tree)
    after = to_plain(tree)
    owner.forget()
    rows.append(1)
    inner["n"] = 2
    assert rows == [[{"n": 2}], 1]
    assert tree == after and owner.before == 0


@pytest.mark.parametrize(
    "remove",
    [
        lambda x: x.pop(),
        lambda x: x.clear(),
        lambda x: x.remove([{"n": 1}]),
        lambda x: x.__delitem__(0),
        lambda x: x.__delitem__(slice(None)),
        lambda x: x.__setitem__(0, [{"n": 1}]),
        lambda x: x.__setitem__(slice(None), [1, 2]),
        lambda x: x.__setitem__(slice(None, None, -1), [1]),
        lambda x: x.__imul__(0),
        lambda x: x.__init__([]),
    ],
)
def test_what_is_taken_out_of_a_list_is_cut_off(remove: Callable[[Any], Any]) -> None:
    tree, owner = owned([[{"n": 1}]])
    item, inner = tree[0], tree[0][0]
    remove(tree)
    after = to_plain(tree)
    owner.forget()
    item.append(1)
    inner["n"] = 2
    assert tree == after and owner.before == 0


def test_what_was_taken_out_is_copied_when_put_back() -> None:
    tree, owner = owned({"a": [1]})
    taken = tree.pop("a")
    tree["b"] = taken
    taken.append(2)
    assert tree == {"b": [1]}
    assert_all_report(tree, owner)


# --- what JSON cannot hold

REFUSED: list[tuple[Any, str]] = [
    (float("nan"), "nan (float)"),
    (float("inf"), "inf (float)"),
    (Ratio("-inf"), "-inf (tests.parts.json.test_tracked.Ratio)"),
    ({1}, "a set"),
    (frozenset(), "a frozenset"),
    (b"x", "a bytes"),
    (bytearray(), "a bytearray"),
    (datetime(2024, 1, 1, tzinfo=UTC), "a datetime.datetime"),
    (date(2024, 1, 1), "a datetime.date"),
    (Decimal(1), "a decimal.Decimal"),
    (UUID(int=1), "a uuid.UUID"),
    (1j, "a complex"),
    (range(3), "a range"),
    (Bare.ONE, "Bare"),
    (Thing(), "Thing"),
    (Thing, "a type"),
    (UserDict(), "a collections.UserDict"),
    (iter(()), "a tuple_iterator"),
    ("\ud800", "a lone surrogate"),
    ("ok \udcff", "index 3"),
    ({1: 2}, "the key 1 (int)"),
    ({None: 2}, "the key None (NoneType)"),
    ({("a",): 2}, "the key ('a',) (tuple)"),
    ({"\ud800": 2}, "a lone surrogate"),
    (10**5000, "digits"),
    (..., "a ellipsis"),
]
PUTS: dict[str, Callable[[Any, Any], Any]] = {
    "d[k] =": lambda t, v: t.__setitem__("a", v),
    "d.update({})": lambda t, v: t.update({"b": 1, "a": v}),
    "d.update(pairs)": lambda t, v: t.update([("b", 1), ("a", v)]),
    "d.update(k=)": lambda t, v: t.update(b=1, a=v),
    "d |=": lambda t, v: t.__ior__({"b": 1, "a": v}),
    "d.setdefault": lambda t, v: t.setdefault("a", v),
    "l.append": lambda t, v: t["rows"].append(v),
    "l.extend": lambda t, v: t["rows"].extend([1, 2, v]),
    "l +=": lambda t, v: t["rows"].__iadd__([1, v]),
    "l.insert": lambda t, v: t["rows"].insert(0, v),
    "l[i] =": lambda t, v: t["rows"].__setitem__(0, v),
    "l[:] =": lambda t, v: t["rows"].__setitem__(slice(None), [5, v]),
    "l[::2] =": lambda t, v: t["rows"].__setitem__(slice(None, None, 2), [5, v]),
    "inside a container": lambda t, v: t.__setitem__("a", [{"x": v}]),
}


@pytest.mark.parametrize(("value", "seen"), REFUSED, ids=[seen for _, seen in REFUSED])
@pytest.mark.parametrize("put", PUTS)
def test_refused_value_changes_nothing(put: str, value: Any, seen: str) -> None:
    plain = {"rows": [[1], 2, {"a": 3}]}
    tree, owner = owned(plain)
    with pytest.raises(DataValueError) as caught:
        PUTS[put](tree, value)
    assert seen.split(".")[-1] in str(caught.value)
    assert issubclass(DataValueError, TaskStateError) and issubclass(DataValueError, ValueError)
    assert tree == plain and owner.before == owner.after == 0
    str(caught.value).encode()
    assert_all_report(tree, owner)


@pytest.mark.parametrize(
    ("put", "path"),
    [
        (lambda t: t.__setitem__("when", {1}), 'data["when"]'),
        (lambda t: t["rows"][3].__setitem__("when", {1}), 'data["rows"][3]["when"]'),
        (lambda t: t["rows"][3].update(a=1, when=[0, {1}]), 'data["rows"][3]["when"][1]'),
        (lambda t: t["rows"][3].setdefault("when", {1}), 'data["rows"][3]["when"]'),
        (lambda t: t["rows"].append({1}), 'data["rows"][4]'),
        (lambda t: t["rows"].extend([0, {"x": {1}}]), 'data["rows"][5]["x"]'),
        (lambda t: t["rows"].insert(1, {1}), 'data["rows"][1]'),
        (lambda t: t["rows"].insert(-1, {1}), 'data["rows"][3]'),
        (lambda t: t["rows"].__setitem__(-1, {1}), 'data["rows"][3]'),
        (lambda t: t["rows"].__setitem__(slice(1, 3), [0, {1}]), 'data["rows"][2]'),
        (lambda t: t["rows"].__setitem__(slice(None, None, 2), [0, {1}]), 'data["rows"][2]'),
        (lambda t: t.update({'say "hi"\n': {1}}), r'data["say \"hi\"\n"]'),
        (lambda t: t.update({"größe": {1}}), 'data["größe"]'),
        (lambda t: t["rows"][3].update({"x": {1: 2}}), 'data["rows"][3]["x"] has the key'),
        (lambda t: t["rows"][3].update({1: 2}), 'data["rows"][3] has the key'),
        (lambda t: t["rows"][3].setdefault(1, 2), 'data["rows"][3] has the key'),
        (lambda _: to_tracked({"a": [{1}]}), 'data["a"][0]'),
        (lambda _: to_tracked({"a": [{1}]}, path="data of task 5"), 'data of task 5["a"][0]'),
        (lambda _: to_tracked({1}), "data"),
    ],
)
def test_error_names_the_path_and_the_type(put: Callable[[Any], Any], path: str) -> None:
    tree = to_tracked({"rows": [[1], [1], {}, {}], "same": [[1], {}]})
    with pytest.raises(DataValueError) as caught:
        put(tree)
    assert str(caught.value).startswith(path + " ")
    assert "set" in str(caught.value) or "int" in str(caught.value)


def test_path_follows_an_item_that_moved() -> None:
    tree = to_tracked({"rows": [{}, {}]})
    item = tree["rows"][1]
    tree["rows"].insert(0, {})
    with pytest.raises(DataValueError, match=r'^data\["rows"\]\[2\]\["x"\] '):
        item["x"] = {1}


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ((1, [2, (3,)]), [1, [2, [3]]]),
        (Point(1, 2), [1, 2]),
        (Colour.RED, "red"),
        (Shade.DARK, "dark"),
        (Size.SMALL, 1),
        (Ratio(1.5), 1.5),
        ({Colour.RED: Size.SMALL}, {"red": 1}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (Counter("aab"), {"a": 2, "b": 1}),
        (10**400, 10**400),
        (-0.0, -0.0),
        ("\x00 \u2028 🦆", "\x00 \u2028 🦆"),
        ({"": {}}, {"": {}}),
        (True, True),
    ],
)
def test_value_is_stored_as_json_has_it(value: Any, stored: Any) -> None:
    tree = to_tracked({"v": value})
    assert is_same(to_plain(tree), {"v": stored})
    assert is_same(json.loads(json.dumps(tree)), {"v": stored})
    assert repr(tree) == repr({"v": stored})


def test_key_that_is_an_enum_member_is_stored_as_text() -> None:
    tree = to_tracked({})
    tree[Colour.RED] = 1
    tree.setdefault(Shade.DARK, 2)
    assert [type(key) for key in tree] == [str, str] and tree["red"] == tree[Colour.RED] == 1


def test_value_that_contains_itself_is_refused() -> None:
    loop: Any = {"rows": []}
    loop["rows"].append(loop)
    tree, owner = owned({"a": 1})
    with pytest.raises(DataValueError, match=r'^data\["loop"\]\["rows"\]\[0\] .*contains itself'):
        tree["loop"] = loop
    assert tree == {"a": 1} and owner.before == 0
    shared = [1]
    assert to_tracked({"a": shared, "b": [shared, shared]}) == {"a": [1], "b": [[1], [1]]}


def nested(levels: int) -> Any:
    value: Any = []
    for level in range(levels - 1):
        value = [value] if level % 2 else {"a": value}
    return value


def test_too_deep_nesting_is_refused() -> None:
    deepest = to_tracked(nested(MAX_DEPTH))
    assert json.loads(json.dumps(deepest)) == to_plain(deepest) == copy.deepcopy(deepest) == nested(MAX_DEPTH)
    assert sync(deepest, nested(MAX_DEPTH)) is deepest and is_same(deepest, nested(MAX_DEPTH))
    assert merge(nested(1), nested(MAX_DEPTH), nested(MAX_DEPTH)) == deepest
    for levels in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(DataValueError, match=f"inside {MAX_DEPTH} other containers"):
            to_tracked(nested(levels))


def test_depth_counts_from_the_root() -> None:
    tree, owner = owned({})
    node = tree
    for _ in range(MAX_DEPTH - 1):
        node = node.setdefault("a", {})
    owner.forget()
    containers_of_any_kind: tuple[Any, ...] = ([], {}, ())
    for too_deep in containers_of_any_kind:
        with pytest.raises(DataValueError):
            node["a"] = too_deep
    assert owner.before == 0
    node["a"] = 1
    tree["copy"] = 1
    with pytest.raises(DataValueError):
        tree["copy"] = tree
    json.dumps(tree)


def test_stored_values_are_taken_as_they_are() -> None:
    value = json.loads('{"x": [NaN, "\\ud800"]}')
    tree = track_stored(value)
    assert is_tracked(tree) and is_same(to_plain(tree), value)
    assert is_same(sync(to_tracked({"x": [1]}), value), value)
    assert is_same(merge(value, value, value), value)
    tree["x"][0] = None
    assert tree == {"x": [None, "\ud800"]}


# --- sync


def test_sync_keeps_aliases_alive_and_tells_nobody() -> None:
    tree, owner = owned({"rows": [{"n": 1}, {"n": 2}], "meta": {"tags": ["a"]}})
    rows, second, tags = tree["rows"], tree["rows"][1], tree["meta"]["tags"]
    value = {"meta": {"tags": ["b", "c"], "x": {}}, "rows": [{"n": 5}, {"m": 6}, {"n": 7}], "new": []}
    assert sync(tree, value) is tree
    assert tree == value and owner.before == owner.after == 0
    assert tree["rows"] is rows and rows[1] is second and tree["meta"]["tags"] is tags
    assert_all_report(tree, owner)
    tags.append("d")
    second["n"] = 8
    assert tree["meta"]["tags"] == ["b", "c", "d"] and tree["rows"][1] == {"m": 6, "n": 8}
    assert value["meta"] == {"tags": ["b", "c"], "x": {}}, "the value itself was not taken over"


def test_sync_cuts_off_what_is_gone() -> None:
    tree, owner = owned({"a": [1], "b": {"x": []}, "rows": [[1], [2]]})
    gone = [tree["a"], tree["b"], tree["b"]["x"], tree["rows"][1]]
    sync(tree, {"b": [], "rows": [[1]]})
    for node in gone:
        touch(node)
    assert owner.before == 0 and tree == {"b": [], "rows": [[1]]}
    assert_all_report(tree, owner)


@pytest.mark.parametrize("value", [[1], {"a": 1}, "x", None])
@pytest.mark.parametrize("before", [[2, []], {"b": 2}])
def test_sync_to_another_kind_of_root_moves_the_owner(before: Any, value: Any) -> None:
    tree, owner = owned(before)
    after = sync(tree, value)
    assert is_same(to_plain(after), value)
    assert_all_report(after, owner)
    owner.forget()
    touch(tree)
    assert (owner.before == 0) == (after is not tree)


def test_sync_tells_apart_what_compares_equal() -> None:
    tree = to_tracked({"v": [1, True, 0.0]})
    for value in ({"v": [True, 1, -0.0]}, {"v": [1.0, 1, 0]}, {"v": [1, True, 0.0]}):
        assert is_same(to_plain(sync(tree, value)), value)


def test_sync_leaves_a_running_loop_alone() -> None:
    def stored(factor: int) -> Any:
        return {"x": {"b": factor, "c": factor, "a": factor}, "rows": [{"n": n * factor} for n in range(5)]}

    tree = to_tracked({"x": {"b": 1, "a": 1, "c": 1}, "rows": [{"n": n} for n in range(5)]})
    tree["x"]["b"] = tree["x"].pop("b")  # leaves a hole in the dict's memory, which a rebuilt one would not have
    seen: list[Any] = []
    for row in tree["rows"]:
        sync(tree, stored(10))
        seen.append(row["n"])
        for key in tree["x"]:
            sync(tree, stored(1))
            seen.append(key)
    assert seen == [0, "a", "c", "b", 10, "a", "c", "b", 20, "a", "c", "b", 30, "a", "c", "b", 40, "a", "c", "b"]


# --- the owner


def test_owner_may_sync_before_a_change() -> None:
    tree = to_tracked({"rows": [1], "gone": 1})
    stored = [{"rows": [7, 8], "new": 1}]
    owner = RecordingOwner(lambda: stored and sync(tree, stored.pop()))
    bind(tree, owner)
    tree["rows"].append(9)
    assert tree == {"rows": [7, 8, 9], "new": 1} and owner.after == 1


@pytest.mark.parametrize(
    ("change", "after"),
    [
        (lambda t: t.setdefault("a", [0]).append(2), {"a": [1, 2]}),
        (lambda t: t["rows"].pop(), {"a": [1], "rows": [[5]]}),
        (lambda t: t["rows"].insert(9, 7), {"a": [1], "rows": [[5], [6], 7]}),
        (lambda t: t["rows"].__imul__(2), {"a": [1], "rows": [[5], [6], [5], [6]]}),
        (lambda t: t["rows"].sort(reverse=True), {"a": [1], "rows": [[6], [5]]}),
        (lambda t: t.pop("a"), {"rows": [[5], [6]]}),
        (lambda t: t.clear(), {}),
    ],
)
def test_change_is_made_to_what_the_owner_loaded(change: Callable[[Any], Any], after: Any) -> None:
    tree = to_tracked({"rows": [[1]]})
    stored = [{"a": [1], "rows": [[5], [6]]}]
    owner = RecordingOwner(lambda: stored and sync(tree, stored.pop()))
    bind(tree, owner)
    change(tree)
    assert tree == after if "rows" in after or not after else tree["a"] == after["a"]
    assert_all_report(tree, owner)


def test_container_assigned_to_its_own_place_comes_back_if_the_load_removed_it() -> None:
    tree = to_tracked({"rows": [[1]], "x": 1})
    rows = tree["rows"]
    stored: list[Any] = [{"x": 2}]
    owner = RecordingOwner(lambda: stored and sync(tree, stored.pop()))
    bind(tree, owner)
    tree["rows"] = rows
    assert tree["rows"] is rows and tree == {"rows": [[1]], "x": 2}
    assert_all_report(tree, owner)


def test_change_of_a_container_that_the_load_removed_is_refused_aloud() -> None:
    tree = to_tracked({"rows": [1]})
    rows = tree["rows"]
    owner = RecordingOwner(lambda: sync(tree, {}))
    bind(tree, owner)
    with pytest.raises(TaskStateError, match="this list is no longer part"):
        rows.append(2)
    assert tree == {} and rows == [1] and owner.after == 0


def test_owner_that_raises_stops_the_change() -> None:
    def fail() -> None:
        raise ConnectionError

    tree = to_tracked({"rows": [[1]]})
    bind(tree, RecordingOwner(fail))
    for changes, node in ((DICT_CHANGES, tree), (LIST_CHANGES, tree["rows"])):
        for change in changes.values():
            with pytest.raises(ConnectionError):
                change(node)
    assert tree == {"rows": [[1]]}


def test_tree_without_an_owner_changes_quietly() -> None:
    tree, owner = owned({"rows": []})
    bind(tree, None)
    tree["rows"].append(1)
    assert tree == {"rows": [1]} and owner.before == 0


def test_only_a_root_can_be_bound() -> None:
    tree, owner = owned({"rows": []})
    with pytest.raises(ValueError, match="root"):
        bind(tree["rows"], RecordingOwner())
    assert_all_report(tree, owner)


def test_nested_reference_keeps_everything_above_it() -> None:
    tree, owner = owned({"rows": [[]]})
    kept = weakref.ref(owner)
    inner = tree["rows"][0]
    del tree, owner
    gc.collect()
    inner.append(1)
    alive = kept()
    assert alive is not None and alive.after == 1


def test_owner_and_tree_can_be_collected_together() -> None:
    class Row:
        def __init__(self) -> None:
            self.data = to_tracked({"rows": [[]]})
            bind(self.data, self)

        def before_change(self) -> None: ...

        def after_change(self) -> None: ...

    row = Row()
    kept = weakref.ref(row)
    row.data["rows"].append(1)
    del row
    gc.collect()
    assert kept() is None


def test_heapq_is_put_right_by_assigning_a_copy() -> None:
    """heapq writes into the list's memory, which nothing written in Python can see."""
    tree, owner = owned({"heap": []})
    heapq.heappush(tree["heap"], [1, {"n": 1}])
    tree["heap"] = list(tree["heap"])
    assert is_tracked(tree) and tree == {"heap": [[1, {"n": 1}]]}
    assert_all_report(tree, owner)


def test_item_popped_by_heapq_can_still_refuse_a_value() -> None:
    tree, _ = owned([[1, {}]])
    item = heapq.heappop(tree)
    with pytest.raises(DataValueError, match=r"a set, which JSON cannot hold"):
        item.append({1})


# --- merge


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged"),
    [
        ({"a": 1}, {"a": 2}, {"a": 1, "b": 3}, {"a": 2, "b": 3}),
        ({"a": 1}, {"a": 2}, {"a": 3}, {"a": 2}),
        ({"a": 1, "b": 1}, {"b": 1}, {"a": 1, "b": 2}, {"b": 2}),
        ({"a": 1}, {}, {"a": 2}, {}),
        ({"a": 1}, {"a": 1}, {}, {}),
        ({"a": 1}, {"a": 2}, {}, {"a": 2}),
        ({"a": 1}, {}, {}, {}),
        ({}, {"n": {"x": 1}}, {"n": {"y": 2}}, {"n": {"x": 1, "y": 2}}),
        ({}, {"n": {"x": 1}}, {"n": {"x": 2}}, {"n": {"x": 1}}),
        ({"n": 5}, {"n": {"x": 1}}, {"n": {"y": 2}}, {"n": {"x": 1, "y": 2}}),
        ({"n": {"x": 1, "y": 1}}, {"n": {"x": 2, "y": 1}}, {"n": {"x": 1, "y": 2}}, {"n": {"x": 2, "y": 2}}),
        ({"n": {"m": {"x": 1}}}, {"n": {"m": {}}}, {"n": {"m": {"x": 1, "y": 2}}}, {"n": {"m": {"y": 2}}}),
        ({"n": {"x": 1}}, {"n": {"x": 2}}, {"n": [1]}, {"n": {"x": 2}}),
        ({"n": {"x": 1}}, {"n": [1]}, {"n": {"x": 2}}, {"n": [1]}),
        ({"n": {"x": 1}}, {}, {"n": {"x": 2}}, {}),
        ({"n": {"x": 1}}, {"n": {"x": 2}}, {}, {"n": {"x": 2}}),
        ({"l": [1]}, {"l": [1, 2]}, {"l": [1, 3]}, {"l": [1, 2]}),
        ({"l": [{"a": 1}]}, {"l": [{"a": 2}]}, {"l": [{"a": 1, "b": 2}]}, {"l": [{"a": 2}]}),
        ({"l": [1]}, {"l": [1]}, {"l": []}, {"l": []}),
        ({"a": 1}, {"a": True}, {"a": 5}, {"a": True}),
        ({"a": 1}, {"a": 1.0}, {"a": 5}, {"a": 1.0}),
        ({"a": True}, {"a": True}, {"a": 1}, {"a": 1}),
        ({"a": 0.0}, {"a": -0.0}, {"a": 1}, {"a": -0.0}),
        ({"a": [1]}, {"a": [True]}, {"a": [2]}, {"a": [True]}),
        ({"a": None}, {}, {"a": None}, {}),
        ({}, {"a": None}, {}, {"a": None}),
        ({}, {}, {"a": None}, {"a": None}),
        (1, 1, "x", "x"),
        (1, 2, "x", 2),
        (None, {"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": 1}, None, {"a": 2}, None),
        ({"a": 1}, {"a": 1}, [1], [1]),
        ([1], [1], {"a": 1}, {"a": 1}),
    ],
)
def test_merge(base: Any, ours: Any, theirs: Any, merged: Any) -> None:
    arguments = copy.deepcopy((base, ours, theirs))
    result = merge(base, ours, theirs)
    assert is_same(result, merged)
    assert is_same([base, ours, theirs], list(arguments))
    assert is_same(merge(to_tracked(base), to_tracked(ours), to_tracked(theirs)), merged)
    assert is_plain(merge(to_tracked(base), to_tracked(ours), to_tracked(theirs)))


def test_merge_shares_nothing_with_its_arguments() -> None:
    base, ours, theirs = {"a": [1]}, {"a": [1], "b": [{}]}, {"a": [1], "c": {"d": []}}
    inputs = {id(node) for value in (base, ours, theirs) for node in containers(value)}
    assert not inputs & {id(node) for node in containers(merge(base, ours, theirs))}


def test_nan_in_an_old_row_is_no_change() -> None:
    assert merge({"a": float("nan")}, {"a": float("nan")}, {"a": 1}) == {"a": 1}


# --- properties

keys = st.sampled_from("abc") | st.text(max_size=2)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.integers()
    | st.sampled_from([0.0, -0.0, 1.0])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)
trees = st.lists(values, max_size=4) | st.dictionaries(keys, values, max_size=4)
indexes = st.integers(-5, 5)
slices = st.builds(
    slice,
    st.none() | indexes,
    st.none() | indexes,
    st.none() | st.sampled_from([-2, -1, 1, 2, 3]),
)


def order(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


dict_operations = st.one_of(
    st.builds(lambda k, v: lambda d: d.__setitem__(k, v), keys, values),
    st.builds(lambda k: lambda d: d.__delitem__(k), keys),
    st.builds(lambda k: lambda d: d.pop(k), keys),
    st.builds(lambda k, v: lambda d: d.pop(k, v), keys, values),
    st.just(lambda d: d.popitem()),
    st.just(lambda d: d.clear()),
    st.builds(lambda k, v: lambda d: d.setdefault(k, v), keys, values),
    st.builds(lambda v: lambda d: d.update(v), st.dictionaries(keys, values, max_size=3)),
    st.builds(lambda v: lambda d: d.update(v), st.lists(st.tuples(keys, values), max_size=3)),
    st.builds(lambda v: lambda d: d.update(**v), st.dictionaries(st.sampled_from("abc"), values, max_size=3)),
    st.builds(lambda v: lambda d: d.__ior__(v), st.dictionaries(keys, values, max_size=3)),
    st.just(lambda d: d.update(d)),
    st.builds(lambda k, m: lambda d: d.update({k: d[m]}), keys, keys),
    st.builds(lambda k, m: lambda d: d.setdefault(k, d[m]), keys, keys),
    st.builds(lambda k, m: lambda d: d.update({k: d[m], m: d[k]}), keys, keys),
    st.builds(lambda k: lambda d: d.__setitem__(k, d[k]), keys),
    # A plain dict would now contain itself.
    st.builds(lambda k: lambda d: d.__setitem__(k, d if type(d) is TrackedDict else copy.deepcopy(d)), keys),
    st.builds(lambda k: lambda d: d.__setitem__(k, [d.pop(k)]), keys),
)
list_operations = st.one_of(
    st.builds(lambda i, v: lambda x: x.__setitem__(i, v), indexes, values),
    st.builds(lambda s, v: lambda x: x.__setitem__(s, v), slices, st.lists(values, max_size=3)),
    st.builds(lambda i: lambda x: x.__delitem__(i), indexes),
    st.builds(lambda s: lambda x: x.__delitem__(s), slices),
    st.builds(lambda v: lambda x: x.append(v), values),
    st.builds(lambda v: lambda x: x.extend(v), st.lists(values, max_size=3)),
    st.builds(lambda v: lambda x: x.extend(item for item in v), st.lists(values, max_size=3)),
    st.builds(lambda v: lambda x: x.__iadd__(v), st.lists(values, max_size=3)),
    st.builds(lambda i, v: lambda x: x.insert(i, v), indexes, values),
    st.just(lambda x: x.pop()),
    st.builds(lambda i: lambda x: x.pop(i), indexes),
    st.builds(lambda v: lambda x: x.remove(v), scalars),
    st.builds(lambda i: lambda x: x.remove(x[i]), indexes),
    st.just(lambda x: x.reverse()),
    st.just(lambda x: x.sort()),
    st.builds(lambda reverse: lambda x: x.sort(key=order, reverse=reverse), st.booleans()),
    st.just(lambda x: x.clear()),
    st.builds(lambda n: lambda x: x.__imul__(n), st.integers(-1, 2)),
    st.just(lambda x: x.extend(x[:3])),
    st.builds(lambda s: lambda x: x.__setitem__(s, x[s][::-1]), slices),
    st.builds(lambda s, t: lambda x: x.__setitem__(s, x[t]), slices, slices),
    st.builds(lambda i, j: lambda x: x.__setitem__(i, x[j]), indexes, indexes),
    st.builds(lambda i: lambda x: x.append(x[i]), indexes),
    st.builds(lambda seed: lambda x: random.Random(seed).shuffle(x), st.integers(0, 9)),  # noqa: S311
)


def attempt(operation: Callable[[Any], Any], node: Any) -> tuple[Any, type[Exception] | None]:
    try:
        return operation(node), None
    except (IndexError, KeyError, ValueError, TypeError) as error:
        return None, type(error)


def assert_nothing_changed_yet(owner: RecordingOwner, tree: Any, before: Any) -> None:
    if owner.before == 1:
        assert is_same(to_plain(tree), before)


@quick
@given(st.data())
def test_any_sequence_of_operations_mirrors_plain_values_and_misses_no_change(data: st.DataObject) -> None:
    plain = data.draw(trees, "value")
    tree, owner = owned(plain)
    assert is_same(to_plain(tree), plain)
    plain = copy.deepcopy(plain)
    seen: dict[int, Any] = {}
    for _ in range(data.draw(st.integers(1, 8), "how many")):
        nodes = list(containers(tree))
        seen.update((id(node), node) for node in nodes)
        if len(nodes) > 200:
            break
        place = data.draw(st.integers(0, len(nodes) - 1), "where")
        node, mirror = nodes[place], list(containers(plain))[place]
        operation = data.draw(dict_operations if isinstance(node, dict) else list_operations)
        before = to_plain(plain)
        owner.forget()
        owner.on_before = partial(assert_nothing_changed_yet, owner, tree, before)
        expected, expected_error = attempt(operation, mirror)
        expected = to_plain(expected)
        plain = before if expected_error else to_plain(plain)  # a failed plain sort leaves any order
        result, error = attempt(operation, node)
        assert error == expected_error
        assert is_same(to_plain(result), expected)
        assert json.dumps(tree) == json.dumps(plain), "same values, same order of keys"
        assert is_tracked(tree)
        assert len({id(node) for node in containers(tree)}) == len(list(containers(tree)))
        if error:
            assert owner.after == 0
        if not is_same(before, plain):
            assert owner.after == owner.before >= 1
    owner.on_before = lambda: None
    attached = {id(node) for node in containers(tree)}
    assert_all_report(tree, owner)
    for identity, node in seen.items():
        owner.forget()
        touch(node)
        assert owner.after == (1 if identity in attached else 0)


@quick
@given(trees, trees)
def test_sync_makes_equal_and_keeps_whatever_stands_at_the_same_place(value: Any, other: Any) -> None:
    tree, owner = owned(value)
    olds = dict(by_path(tree))
    after = sync(tree, other)
    assert owner.before == 0
    assert is_same(to_plain(after), other)
    news = dict(by_path(after))
    for path, new in news.items():
        assert (new is olds.get(path)) == (type(new) is type(olds.get(path)))
    assert_all_report(after, owner)
    owner.forget()
    attached = {id(node) for node in news.values()}
    for node in olds.values():
        if id(node) not in attached:
            touch(node)
    assert owner.before == 0


@quick
@given(values, values, values)
def test_merge_laws(base: Any, ours: Any, theirs: Any) -> None:
    assert is_same(merge(base, base, theirs), theirs)
    assert is_same(merge(base, ours, base), ours)
    assert is_same(merge(base, ours, ours), ours)
    merged = merge(base, ours, theirs)
    assert is_same(merge(theirs, merged, theirs), merged)
    assert is_same(merge(base, ours, merged), merged), "merging once more changes nothing"


@quick
@given(
    st.dictionaries(keys, values, max_size=4),
    st.dictionaries(keys, values, max_size=4),
    st.dictionaries(keys, values, max_size=4),
)
def test_merge_takes_each_key_from_the_side_that_changed_it(
    base: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    merged = merge(base, ours, theirs)
    for key in base.keys() | ours.keys() | theirs.keys():
        absent = object()
        was, mine, other = (side.get(key, absent) for side in (base, ours, theirs))
        if is_same(mine, was):
            assert is_same(merged.get(key, absent), other)
        elif isinstance(mine, dict) and isinstance(other, dict):
            assert is_same(merged[key], merge(was if isinstance(was, dict) else {}, mine, other))
        else:
            assert is_same(merged.get(key, absent), mine)


@quick
@given(values)
def test_any_json_value_survives_the_way_in_and_out(value: Any) -> None:
    for tree in (to_tracked(value), track_stored(value)):
        assert is_tracked(tree) and is_same(to_plain(tree), value) and is_plain(to_plain(tree))
        assert is_same(json.loads(json.dumps(tree)), value)
        assert repr(tree) == repr(value)


@quick
@given(values, values)
def test_same_means_written_the_same(one: Any, other: Any) -> None:
    written = [json.dumps(value, sort_keys=True) for value in (one, other)]
    assert is_same(one, other) == (written[0] == written[1])
    assert is_same(one, copy.deepcopy(one))


def test_limits_of_whole_numbers_follow_the_interpreter() -> None:
    limit = sys.get_int_max_str_digits()
    assert to_tracked(10 ** (limit - 1)) == 10 ** (limit - 1)
    with pytest.raises(DataValueError, match=f"more than {limit} digits"):
        to_tracked(-(10**limit))
