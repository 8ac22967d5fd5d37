"""Credentials of the blob store from a Secret, for this process and for the processes that it starts.

They go the way on which the environment's own would come, so there is one way: every process of a run opens the store
with its environment. Tasks can read them there, as they could the environment's. Nothing else is done here.
"""

from __future__ import annotations

import base64
import os
from typing import Final

from michelangelo import errors
from michelangelo.app.settings import Settings
from michelangelo.client.client import Client

__all__ = ["NAMES", "hand_on"]

NAMES: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
)
"""What the Secret may hold; other keys of it are left alone."""


def hand_on(client: Client, settings: Settings) -> None:
    """Put the credentials that the settings name into the environment. Raises SettingsError when there are none."""
    if not settings.storage_secret:
        return
    project, _, name = settings.storage_secret.rpartition("/")
    project = project or settings.project
    advice = f"make it with `mactl secret set {name} AWS_ACCESS_KEY_ID -n {project}` while MA_STORAGE_SECRET is not set"
    try:
        data = client.get("Secret", name, namespace=project).get("data") or {}
    except errors.NotFoundError:
        raise errors.SettingsError(
            f"MA_STORAGE_SECRET={settings.storage_secret}: there is no such Secret in project {project}; {advice}"
        ) from None
    found = {key: base64.b64decode(data[key]).decode() for key in NAMES if key in data}
    if not found:
        raise errors.SettingsError(
            f"MA_STORAGE_SECRET={settings.storage_secret}: the Secret has none of the keys {', '.join(NAMES)}; {advice}"
        )
    os.environ.update(found)
