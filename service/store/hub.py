"""Hub names: `org/name@revision`, only with DPPO_ALLOW_HUB=1, resolved to a commit when they are registered."""

from __future__ import annotations

import re

from service.errors import FieldError, Invalid
from service.settings import Settings

__all__ = ["resolve"]

_NAME = re.compile(r"^([\w.-]+/[\w.-]+)@([\w./-]+)$")
PATTERNS = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]


def resolve(path: str, settings: Settings) -> str:
    """A directory: `path` itself if absolute, else the snapshot of a hub name (downloaded to HF_HOME).

    The cache must lie inside the checkpoint roots like every other checkpoint.
    """
    match = _NAME.match(path)
    if match is None:
        return path
    if not settings.allow_hub:
        message = f"{path!r} is a hub name; start the service with DPPO_ALLOW_HUB=1 or give a directory"
        raise Invalid(message, [FieldError(message, field="path")])
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return str(snapshot_download(match[1], revision=match[2], allow_patterns=PATTERNS))
    except (HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, OSError) as error:
        message = f"cannot get {path} from the hub: {error}"
        raise Invalid(message, [FieldError(message, field="path")]) from error
