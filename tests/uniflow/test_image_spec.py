"""Images of tasks, and what else a task says about its surroundings."""

from __future__ import annotations

from typing import Any

import pytest

from michelangelo import uniflow


def test_image_is_recorded_as_it_was_given() -> None:
    assert uniflow.ImageSpec(container_image="team/train:1.4").to_json() == {"containerImage": "team/train:1.4"}
    assert uniflow.ImageSpec(recipe="gpu").to_json() == {"recipe": "gpu"}


@pytest.mark.parametrize("image", ["", "two words", "new\nline", 7])
def test_image_that_is_no_reference_is_refused(image: Any) -> None:
    with pytest.raises(ValueError, match="container_image="):
        uniflow.ImageSpec(container_image=image)


def test_image_of_a_task_must_be_one() -> None:
    with pytest.raises(TypeError, match=r"image_spec='team/train:1': must be uniflow\.ImageSpec"):
        uniflow.task(image_spec="team/train:1")  # type: ignore[call-overload]  # the mistake that is tested


@pytest.mark.parametrize("line", ["-r requirements.txt", "--index-url=http://x", "# nothing", "a\n-r b"])
def test_requirements_are_packages_only(line: str) -> None:
    with pytest.raises(ValueError, match="each must name a package"):
        uniflow.task(requirements=[line])


def test_cores_that_are_asked_for_reach_the_executor() -> None:
    assert uniflow.Process(cpu=2).settings() == {"cpu": 2}
    assert uniflow.Process(memory="1Gi").settings() == {}
