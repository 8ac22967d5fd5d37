"""Status documents: Kubernetes' words, and every error comes back as it went."""

from __future__ import annotations

import pytest

from michelangelo import errors
from michelangelo.meta import causes, status

GROUP = "michelangelo.api"
FIELDS = [causes.required("spec.a"), causes.invalid("spec.b[0]", 7, "must be at most 5")]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (status.not_found(GROUP, "pipelines", "x"), 'pipelines.michelangelo.api "x" not found'),
        (status.not_found("", "namespaces", "x"), 'namespaces "x" not found'),
        (status.already_exists(GROUP, "pipelines", "x"), 'pipelines.michelangelo.api "x" already exists'),
        (
            status.modified(GROUP, "pipelines", "x"),
            'Operation cannot be fulfilled on pipelines.michelangelo.api "x": the object has been modified; please '
            "apply your changes to the latest version and try again",
        ),
        (
            status.invalid(GROUP, "Pipeline", "x", FIELDS[:1]),
            'Pipeline.michelangelo.api "x" is invalid: spec.a: Required value',
        ),
        (
            status.invalid("", "Event", "x", FIELDS),
            'Event "x" is invalid: [spec.a: Required value, spec.b[0]: Invalid value: 7: must be at most 5]',
        ),
    ],
)
def test_messages_are_those_of_kubernetes(error: errors.ApiError, message: str) -> None:
    assert error.message == message
    assert status.to_status(error)["message"] == message


def test_status_of_an_invalid_object_names_every_field() -> None:
    assert status.to_status(status.invalid(GROUP, "Pipeline", "x", FIELDS)) == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": (
            'Pipeline.michelangelo.api "x" is invalid: '
            "[spec.a: Required value, spec.b[0]: Invalid value: 7: must be at most 5]"
        ),
        "reason": "Invalid",
        "details": {
            "name": "x",
            "group": GROUP,
            "kind": "Pipeline",
            "causes": [
                {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.a"},
                {
                    "reason": "FieldValueInvalid",
                    "message": "Invalid value: 7: must be at most 5",
                    "field": "spec.b[0]",
                },
            ],
        },
        "code": 422,
    }


def api_errors() -> list[type[errors.ApiError]]:
    return [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.ApiError)]


@pytest.mark.parametrize("kind", [one for one in api_errors() if one is not errors.ApiError])
def test_every_error_comes_back_as_it_went(kind: type[errors.ApiError]) -> None:
    error = kind("what happened", details={"name": "x"})
    again = status.from_status(status.to_status(error))
    assert type(again) is kind
    assert (again.message, again.details) == (error.message, error.details)


def test_field_errors_come_back_as_they_went() -> None:
    again = status.from_status(status.to_status(status.invalid(GROUP, "Pipeline", "x", FIELDS)))
    assert isinstance(again, errors.InvalidError)
    assert again.errors == tuple(FIELDS)


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ({"code": 409}, errors.ConflictError),
        ({"code": 404, "reason": "Strange"}, errors.NotFoundError),
        ({"code": 418}, errors.BadRequestError),
        ({"code": 504}, errors.InternalError),
        ({"code": 410, "reason": "Gone"}, errors.ExpiredError),
        ({}, errors.InternalError),
        ({"code": 422, "reason": "Invalid", "details": {"causes": None}}, errors.InvalidError),
        ({"code": 404, "reason": "NotFound", "details": None, "message": None}, errors.NotFoundError),
    ],
)
def test_from_status_understands_less_than_a_whole_document(
    document: dict[str, object], kind: type[errors.ApiError]
) -> None:
    assert type(status.from_status(document)) is kind


def test_success_names_what_is_gone() -> None:
    found = status.success(group="", plural="namespaces", name="x", uid="u")
    assert found["status"] == "Success"
    assert found["details"] == {"name": "x", "kind": "namespaces", "uid": "u"}
