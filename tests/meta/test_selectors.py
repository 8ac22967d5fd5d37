"""Selectors: the grammar of Kubernetes, its meaning against a naive model, and terms that never miss an object."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo import errors
from michelangelo.meta import selectors
from michelangelo.meta.selectors import FieldRequirement, FieldSelector, LabelRequirement, LabelSelector

KEYS = st.sampled_from(["a", "b", "app.kubernetes.io/name", "x_y", "in", "notin", "exists"])
VALUES = st.sampled_from(["", "1", "2", "30", "prod", "in", "v1.2_3-x"])
LABELS = st.dictionaries(KEYS, VALUES, max_size=4)


def requirements() -> st.SearchStrategy[LabelRequirement]:
    many = st.lists(VALUES, min_size=1, max_size=3, unique=True).map(lambda values: tuple(sorted(values)))
    numbers = st.integers(-5, 50).map(lambda number: (str(number),))
    return st.one_of(
        st.builds(LabelRequirement, KEYS, st.sampled_from(["=", "!="]), VALUES.map(lambda value: (value,))),
        st.builds(LabelRequirement, KEYS, st.sampled_from(["in", "notin"]), many),
        st.builds(LabelRequirement, KEYS, st.sampled_from(["exists", "!"])),
        st.builds(LabelRequirement, KEYS, st.sampled_from([">", "<"]), numbers.filter(lambda one: one[0][0] != "-")),
    )


LABEL_SELECTORS = st.lists(requirements(), max_size=4).map(lambda found: LabelSelector(tuple(found)))


def naive(requirement: LabelRequirement, labels: dict[str, str]) -> bool:
    value, (first, *_) = labels.get(requirement.key), requirement.values or ("",)
    number = int(value) if value is not None and value.isdecimal() else None
    return {
        "=": value == first,
        "!=": value != first,
        "in": value in requirement.values,
        "notin": value not in requirement.values,
        "exists": value is not None,
        "!": value is None,
        ">": number is not None and first.isdecimal() and number > int(first),
        "<": number is not None and first.isdecimal() and number < int(first),
    }[requirement.operator]


@given(LABEL_SELECTORS)
def test_label_selector_text_reads_back_as_itself(selector: LabelSelector) -> None:
    assert selectors.parse_labels(str(selector)) == selector


@given(LABEL_SELECTORS, LABELS)
def test_label_selector_matches_as_the_naive_model(selector: LabelSelector, labels: dict[str, str]) -> None:
    expected = all(naive(requirement, labels) for requirement in selector.requirements)
    assert selector.matches({"metadata": {"labels": labels}}) is expected


@given(LABEL_SELECTORS, LABELS)
def test_equality_terms_are_carried_by_every_selected_object(selector: LabelSelector, labels: dict[str, str]) -> None:
    obj = {"metadata": {"labels": labels}}
    if selector.matches(obj):
        assert selector.equality_terms() <= selectors.index_terms(obj)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        ("a=b", "a=b"),
        ("a==b", "a=b"),
        (" a = b , c != d ", "a=b,c!=d"),
        ("a=", "a="),
        ("a=,b", "a=,b"),
        ("a in (z, b,b)", "a in (b,z)"),
        ("a in (,b)", "a in (,b)"),
        ("a notin(b)", "a notin (b)"),
        ("!a,b", "!a,b"),
        ("! a", "!a"),
        ("a>1,b<2", "a>1,b<2"),
    ],
)
def test_parse_labels_accepts(text: str, canonical: str) -> None:
    assert str(selectors.parse_labels(text)) == canonical


@pytest.mark.parametrize(
    "text",
    [
        *(
            "=",
            ",",
            "a,",
            ",a",
            "a,,b",
            "a=b=c",
            "a b",
            "a in",
            "a in b",
            "a in (b",
            "a in (b c)",
            "a in (b,(c))",
            "a in )",
        ),
        *("!", "!!a", "!a=b", "a>b", "a<", "-a=b", "a=-b", "a/b/c", "a=" + "b" * 64, "a" * 20_000, "a=ä", "(a)", "a!b"),
    ],
)
def test_parse_labels_refuses(text: str) -> None:
    with pytest.raises(errors.BadRequestError, match="unable to parse the label selector"):
        selectors.parse_labels(text)


def test_index_terms_are_one_per_label() -> None:
    obj = {"metadata": {"labels": {"a": "b", "x/y": ""}}}
    assert selectors.index_terms(obj) == {"label:a=b", "label:x/y="}
    assert selectors.index_terms({"metadata": {}}) == frozenset()
    assert selectors.parse_labels("a=b,c in (d),e in (f,g),h!=i").equality_terms() == {"label:a=b", "label:c=d"}


FIELD_SELECTORS = st.lists(
    st.builds(
        FieldRequirement,
        st.sampled_from(["metadata.name", "spec.kill", "status.state", "metadata.labels[a.b/c]"]),
        st.sampled_from(["=", "!="]),
        st.text(alphabet="ab,=\\!. 1", max_size=5).map(str.strip),
    ),
    max_size=3,
).map(lambda found: FieldSelector(tuple(found)))


@given(FIELD_SELECTORS)
def test_field_selector_text_reads_back_as_itself(selector: FieldSelector) -> None:
    assert selectors.parse_fields(str(selector)) == selector


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True),
        ("metadata.name=x", True),
        ("metadata.name==x", True),
        ("metadata.name!=x", False),
        ("spec.kill=true", True),
        ("spec.attempt=3", True),
        ("spec.absent=", True),
        ("spec.absent!=a", True),
        ("status.state=Running,spec.kill=false", False),
        ("spec.tasks[0].name=a", True),
        ("spec.tasks=", True),
    ],
)
def test_field_selector_matches(text: str, selected: bool) -> None:
    obj = {
        "metadata": {"name": "x"},
        "spec": {"kill": True, "attempt": 3, "tasks": [{"name": "a"}]},
        "status": {"state": "Running"},
    }
    assert selectors.parse_fields(text).matches(obj) is selected


@pytest.mark.parametrize("text", ["a", "=b", "a=b=c", "a=b\\", "a=\\b", "a..b=c", "a[=b", "x" * 20_000 + "=1", "a>1"])
def test_parse_fields_refuses(text: str) -> None:
    with pytest.raises(errors.BadRequestError, match="unable to parse the field selector"):
        selectors.parse_fields(text)


def test_field_selector_tells_what_it_requires() -> None:
    selector = selectors.parse_fields("metadata.name=x,status.state!=Running")
    assert selector.required("metadata.name") == "x"
    assert selector.required("status.state") is None
    assert selector.paths == ("metadata.name", "status.state")
