"""Encoding and decoding of values: round trips, the form on the wire, limits, and what is refused."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import json
import math
import pathlib
import threading
import typing
import uuid
import zoneinfo
from typing import Any

import orjson
import pydantic
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from michelangelo.blobs.memory import MemoryBlobStore
from michelangelo.errors import CodecError, IntegrityError, StorageError
from michelangelo.uniflow import codecs
from michelangelo.uniflow.codecs import tree as trees
from michelangelo.uniflow.future import Future
from michelangelo.uniflow.ref import Ref
from michelangelo.uniflow.task import task


class Colour(enum.Enum):
    RED = 1
    BLUE = (1, 2)


class Bits(enum.Flag):
    A = 1
    B = 2


class Level(enum.IntEnum):
    LOW = 1


class Point(typing.NamedTuple):
    x: int
    y: Any = None


@dataclasses.dataclass
class Node:
    value: Any
    children: list[Node] = dataclasses.field(default_factory=list)
    made: int = dataclasses.field(default=0, init=False)

    def __post_init__(self) -> None:
        self.made += 1


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    a: int


class Model(pydantic.BaseModel):
    name: str
    sizes: tuple[int, ...] = (1,)
    alias: int = pydantic.Field(default=1, alias="otherName")
    _secret: int = pydantic.PrivateAttr(default=3)


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    a: int = 1


@task
def a_task(x: int) -> int:
    return x


def a_function() -> None: ...


class Celsius:
    def __init__(self, degrees: float) -> None:
        self.degrees = degrees

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Celsius) and other.degrees == self.degrees

    def __hash__(self) -> int:
        return hash(self.degrees)


codecs.register_codec(Celsius, name="test-celsius", encode=lambda value: value.degrees, decode=Celsius)


class Bulk:
    def __init__(self, data: bytes) -> None:
        self.data = data


codecs.register_codec(Bulk, name="test-bulk", encode=lambda value: value.data, decode=Bulk, is_data=True)


@pytest.fixture
def blobs() -> MemoryBlobStore:
    return MemoryBlobStore()


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down; nan is itself."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    if isinstance(one, list | tuple | collections.deque):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one.items(), other.items(), strict=True))
    if dataclasses.is_dataclass(one):
        return all(same(getattr(one, each.name), getattr(other, each.name)) for each in dataclasses.fields(one))
    return bool(one == other)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters()),
    st.binary(max_size=40),
    st.decimals(allow_nan=False),
    st.fractions(),
    st.uuids(),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.timezones()),
    st.datetimes(timezones=st.just(datetime.timezone(datetime.timedelta(hours=5, minutes=30)))),
    st.times(),
    st.timedeltas(),
    st.sampled_from([*Colour, *Bits, Bits.A | Bits.B, Level.LOW, Celsius(3.5), range(3, 9, 2)]),
    st.builds(pathlib.Path, st.text("ab/.", min_size=1)),
    st.complex_numbers(allow_nan=False),
)
hashables = scalars.filter(lambda value: value == value and not isinstance(value, decimal.Decimal | fractions.Fraction))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.one_of(st.text(), st.just("$codec")), inner, max_size=4),
        st.dictionaries(hashables, inner, max_size=4),
        st.builds(Node, inner),
        st.builds(Point, st.integers(), inner),
        st.lists(inner, max_size=3).map(collections.deque),
        st.dictionaries(st.text(), inner, max_size=3).map(collections.OrderedDict),
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(value=values)
@example(value=Node(math.nan))
def test_values_come_back_as_they_were(value: Any) -> None:
    blobs = MemoryBlobStore()
    tree = codecs.encode(value, blobs)
    wire = orjson.loads(orjson.dumps(tree))
    assert same(codecs.decode(wire, blobs), value)
    assert same(codecs.decode(wire, blobs, data=False), value)
    assert codecs.digest(codecs.encode(codecs.decode(tree, blobs), blobs)) == codecs.digest(tree)


@settings(deadline=None)
@given(items=st.sets(hashables, max_size=8), order=st.randoms(use_true_random=False))
def test_sets_are_encoded_in_one_order(items: set[Any], order: Any) -> None:
    blobs = MemoryBlobStore()
    shuffled = list(items)
    order.shuffle(shuffled)
    tree = codecs.encode(set(shuffled), blobs)
    assert tree == codecs.encode(items, blobs)
    assert codecs.decode(tree, blobs) == items
    assert codecs.decode(codecs.encode(frozenset(items), blobs), blobs) == frozenset(items)


@given(members=st.dictionaries(st.text(), st.integers(), max_size=6))
def test_digest_does_not_depend_on_the_order_of_keys(members: dict[str, int]) -> None:
    blobs = MemoryBlobStore()
    turned = dict(reversed(members.items()))
    assert codecs.digest(codecs.encode(members, blobs)) == codecs.digest(codecs.encode(turned, blobs))


def test_json_values_are_themselves(blobs: MemoryBlobStore) -> None:
    value = {"b": [1, 2.5, None, True], "a": {"text": "ünï"}}
    assert codecs.encode(value, blobs) == value
    assert list(codecs.encode(value, blobs)) == ["b", "a"]
    assert list(blobs.iterate()) == []


@pytest.mark.parametrize("number", [2**53 + 1, -(2**80), 10**6000], ids=["2^53+1", "-2^80", "10^6000"])
def test_large_integers_are_exact(blobs: MemoryBlobStore, number: int) -> None:
    tree = json.loads(json.dumps(codecs.encode([number], blobs)))
    assert codecs.decode(tree, blobs) == [number]


@pytest.mark.parametrize(
    "value",
    [
        datetime.datetime(2024, 10, 27, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"), fold=1),
        collections.Counter("abracadabra"),
        bytearray(b"xyz"),
        pathlib.PureWindowsPath("c:/x"),
        Frozen(4),
        Model(name="n", otherName=5),
        Open(a=2, more=(1, 2)),
        Node(1, [Node((2, 3))]),
        uuid.UUID(int=5),
        {1: {(2, 3): {4}}},
    ],
    ids=lambda value: type(value).__name__,
)
def test_standard_types_and_records_round_trip(blobs: MemoryBlobStore, value: Any) -> None:
    found = codecs.decode(json.loads(json.dumps(codecs.encode(value, blobs))), blobs)
    assert type(found) is type(value)
    assert found == value


def test_model_keeps_private_and_unset_fields(blobs: MemoryBlobStore) -> None:
    model = Model(name="n")
    model._secret = 9
    found = codecs.decode(codecs.encode(model, blobs), blobs)
    assert (found._secret, found.model_fields_set) == (9, {"name"})


def test_record_is_restored_without_running_its_code(blobs: MemoryBlobStore) -> None:
    assert codecs.decode(codecs.encode(Node(1), blobs), blobs).made == 1


def test_classes_functions_and_tasks_go_by_name(blobs: MemoryBlobStore) -> None:
    for value in (Node, a_function, a_task, len, int):
        tree = codecs.encode(value, blobs)
        assert codecs.decode(tree, blobs) is value
        assert tree["code"].startswith("sha256:")


def test_large_tree_is_one_blob(blobs: MemoryBlobStore) -> None:
    value = {"rows": [{"b": number, "a": "x" * 20} for number in range(1000)]}
    tree = codecs.encode(value, blobs)
    assert set(tree) == {"$codec", "blob", "size"}
    assert [blob.digest for blob in blobs.iterate()] == [tree["blob"]]
    assert tree["size"] > trees.INLINE_BYTES
    found = codecs.decode(tree, blobs, data=False)
    assert found == value
    assert list(found["rows"][0]) == ["b", "a"]


def test_large_tree_names_the_blobs_inside_it(blobs: MemoryBlobStore) -> None:
    tree = codecs.encode([b"x" * 100_000, "y" * 100_000], blobs)
    assert sorted(set(codecs.blobs_in(tree))) == sorted(blob.digest for blob in blobs.iterate())


def test_data_is_a_ref_in_workflow_code_and_a_value_in_tasks(blobs: MemoryBlobStore) -> None:
    tree = codecs.encode({"bulk": Bulk(b"x" * 10_000)}, blobs)
    ref = codecs.decode(tree, blobs, data=False)["bulk"]
    assert isinstance(ref, Ref)
    assert ref.load().data == codecs.decode(tree, blobs)["bulk"].data == b"x" * 10_000
    assert codecs.encode({"bulk": ref}, blobs) == tree


def test_ref_says_how_to_get_at_the_value(blobs: MemoryBlobStore) -> None:
    ref = codecs.decode(codecs.encode(Bulk(b"1"), blobs), blobs, data=False)
    with pytest.raises(AttributeError, match=r"has no 'shape'.*\.load\(\)"):
        _ = ref.shape
    for use in (lambda: ref[0], lambda: len(ref), lambda: list(ref), lambda: bool(ref)):
        with pytest.raises(TypeError, match=r"\.load\(\)"):
            use()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, {"b": object()}]}, r"value\['a'\]\[1\]\['b'\]: no codec carries builtins.object"),
        (Node([Node(threading.Lock())]), r"value\.value\[0\]\.value: _thread.lock lives in one process"),
        ([1, (2, iter([]))], r"value\[1\]\[1\]: no codec carries"),
        ([(x for x in range(3))], r"value\[0\]: a generator can be read only once; return list"),
        ({object: {1, 2}, 3: {object()}}, r"value\[3\]"),
        (ValueError("x"), r"is an exception; raise it"),
        ([collections.defaultdict(list)], r"value\[0\]: .*defaultdict, a kind of dict; return dict"),
        (lambda: 1, r"defined inside a function|lambda"),
        (type("Local", (), {"__qualname__": "f.<locals>.Local"}), "move it to the top of its module"),
        (Future[int](None), "has no result to pass on"),
    ],
    ids=[
        "object",
        "lock",
        "iterator",
        "generator",
        "in-set",
        "exception",
        "defaultdict",
        "lambda",
        "local-class",
        "future",
    ],
)
def test_value_without_codec_is_refused_with_its_path(blobs: MemoryBlobStore, value: Any, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        codecs.encode(value, blobs)


def test_value_that_contains_itself_is_refused(blobs: MemoryBlobStore) -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(CodecError, match="nested more than 80 deep"):
        codecs.encode(loop, blobs)


def test_deepest_value_that_is_taken_round_trips(blobs: MemoryBlobStore) -> None:
    value: Any = 1
    for _ in range(trees.MAX_DEPTH):
        value = {1: value}
    assert codecs.decode(codecs.encode(value, blobs), blobs) == value


def test_pickle_only_where_asked_for(blobs: MemoryBlobStore) -> None:
    value = [threading.local, {"x": slice(1, 2)}]
    with pytest.raises(CodecError, match="io='pickle'"):
        codecs.encode(value, blobs)
    tree = codecs.encode(value, blobs, io="pickle")
    assert tree[1]["x"]["$codec"] == "pickle"
    with pytest.raises(CodecError, match="pickled value is not accepted"):
        codecs.decode(tree, blobs)
    with pytest.raises(CodecError, match="pickled value is not accepted"):
        codecs.decode(tree, blobs, data=False)
    assert codecs.decode(tree, blobs, allow_pickle=True)[1] == {"x": slice(1, 2)}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"$codec": "nosuch"}, "no codec is named 'nosuch'"),
        ({"$codec": "dataclass", "class": "subprocess:Popen", "fields": {"args": "true"}}, "is not a dataclass"),
        ({"$codec": "pydantic", "class": "os:system", "fields": {}, "set": []}, "is not a pydantic model"),
        ({"$codec": "enum", "class": "builtins:exec", "name": "x"}, "is not an enum"),
        ({"$codec": "namedtuple", "class": "builtins:eval", "fields": {}}, "is not a named tuple"),
        ({"$codec": "dataclass", "class": "no.such.module:X", "fields": {}}, "cannot import"),
        ({"$codec": "dataclass", "class": "nonsense", "fields": {}}, "must be module:qualname"),
        ({"$codec": "tuple"}, "cannot decode"),
        ({"$codec": "bytes", "value": "%%%"}, "cannot decode"),
        ({"$codec": "datetime", "value": "yesterday"}, "cannot decode"),
        ({"$codec": "set", "items": [[]]}, "cannot decode"),
        ({"$codec": ["x"]}, "cannot decode"),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else None,
)
def test_tree_that_is_none_is_refused(blobs: MemoryBlobStore, tree: Any, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        codecs.decode(tree, blobs)


def test_missing_and_damaged_blobs_are_storage_errors(blobs: MemoryBlobStore) -> None:
    tree = codecs.encode(b"x" * 10_000, blobs)
    blobs._blobs[tree["blob"]] = b"y"
    with pytest.raises(IntegrityError):
        codecs.decode(tree, blobs)
    blobs.delete(tree["blob"])
    with pytest.raises(StorageError, match="is not in memory"):
        codecs.decode(tree, blobs)


def test_class_that_changed_since_is_explained(blobs: MemoryBlobStore) -> None:
    tree = codecs.encode(Node(1), blobs)
    old = {**tree, "fields": {"value": 1}}
    assert codecs.decode(old, blobs) == codecs.decode(
        {**tree, "fields": {"value": 1, "children": [], "made": 0}}, blobs
    )
    with pytest.raises(CodecError, match="new field value without a default"):
        codecs.decode({**tree, "fields": {}}, blobs)
    with pytest.raises(CodecError, match="no field gone any more"):
        codecs.decode({**tree, "fields": {**tree["fields"], "gone": 1}}, blobs)
    model = codecs.encode(Model(name="n"), blobs)
    assert codecs.decode({**model, "fields": {"name": "n"}}, blobs).sizes == (1,)
    with pytest.raises(CodecError, match="new field name without a default"):
        codecs.decode({**model, "fields": {}}, blobs)


def test_codec_names_of_the_platform_cannot_be_taken() -> None:
    with pytest.raises(ValueError, match="codec name 'tuple' is the platform's"):
        codecs.register_codec(Celsius, name="tuple", encode=str, decode=lambda text: Celsius(0))


def test_settled_future_passes_its_output_on(blobs: MemoryBlobStore) -> None:
    future = Future[Any](None)
    future.settle({"$codec": "tuple", "items": [1]}, lambda tree: codecs.decode(tree, blobs))
    tree = codecs.encode([future], blobs)
    assert codecs.decode(tree, blobs) == [(1,)]
    assert list(codecs.futures_in({"a": [future, (future,)]})) == [future, future]


def test_arguments_are_loaded_but_where_a_ref_is_wanted(blobs: MemoryBlobStore) -> None:
    def fn(a: Bulk, b: Ref, *rest: Any, c: Any) -> None: ...

    bulk = Bulk(b"12")
    encoded = codecs.encode_arguments((bulk, bulk, 1), {"c": bulk}, blobs)
    args, kwargs = codecs.decode_arguments(encoded, blobs, fn=fn)
    assert [type(value) for value in args] == [Bulk, Ref, int]
    assert kwargs["c"].data == b"12"
    with pytest.raises(CodecError, match="argument 2: value: no codec"):
        codecs.encode_arguments((1, object()), {}, blobs)
