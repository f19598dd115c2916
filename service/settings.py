"""Settings: flag > `DPPO_*` environment variable > default. Passed in, never read at import."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

__all__ = ["Settings"]

MIB = 1 << 20
GIB = 1 << 30


class Settings(BaseSettings):
    """Everything a deployment can set; the README lists each with its default."""

    model_config = SettingsConfigDict(env_prefix="DPPO_", env_ignore_empty=True, frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    data_dir: Path = Path("data")
    token: SecretStr | None = Field(None, description="Bearer token; required to bind another address.")
    unsafe_no_auth: bool = Field(False, description="Bind another address without a token.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field((), description="More Host names, comma-separated.")
    checkpoint_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="Directories checkpoints may lie in, os.pathsep-separated; default DATA_DIR/checkpoints."
    )
    allow_hub: bool = Field(False, description="Allow org/name@revision checkpoints.")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")

    max_line_bytes: int = Field(64 * MIB, description="Longest record of an upload.")
    max_upload_bytes: int = Field(20 * GIB, description="Largest request body.")
    max_expanded_bytes: int = Field(200 * GIB, description="Largest upload once decompressed.")
    max_expansion: int = Field(200, description="Largest decompression ratio beyond the first 64 MiB.")
    min_free_bytes: int = Field(1 * GIB, description="Disk space an upload must leave free.")
    max_jobs: int = Field(100, description="Jobs that may wait or run at once.")

    sql_seconds: float = Field(10.0, gt=0)
    sql_memory_bytes: int = Field(1 * GIB, gt=0)
    sql_rows: int = Field(1_000_000, gt=0)
    sql_bytes: int = Field(256 * MIB, gt=0)

    trash_seconds: float = Field(3600.0, ge=0, description="How long deleted files stay for open readers.")

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("checkpoint_roots", mode="before")
    @classmethod
    def _split_roots(cls, value: object) -> object:
        return tuple(Path(part) for part in value.split(os.pathsep) if part) if isinstance(value, str) else value

    @property
    def roots(self) -> tuple[Path, ...]:
        """Resolved directories that checkpoints and tokenizers may lie in."""
        roots = self.checkpoint_roots or (self.data_dir / "checkpoints",)
        return tuple(root.resolve() for root in roots)
