"""`ImageSpec`: the container image that a task asks for. It is recorded with each attempt; executors that run
containers use it, and those that run processes of this machine do not."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ImageSpec"]


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """Give one of the two."""

    container_image: str | None = None
    """A complete reference, such as `registry.example/team/train:1.4` or one with a digest."""
    recipe: str | None = None
    """The name of a recipe that the platform builds an image from."""

    def __post_init__(self) -> None:
        for name in ("container_image", "recipe"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value or value != "".join(value.split())):
                raise ValueError(f"ImageSpec({name}={value!r}): must be a name without spaces, such as repo/image:1.0")

    def to_json(self) -> dict[str, str]:
        """As it is recorded."""
        given = {"containerImage": self.container_image, "recipe": self.recipe}
        return {name: value for name, value in given.items() if value is not None}
