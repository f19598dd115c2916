"""Templates as HTML. Autoescape is always on: what a page shows may come from a log."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from web import numbers, text, words
from web.figures.theme import MARKS

__all__ = ["Blank", "render"]


class Blank(dict[str, Any]):
    """A row with every field empty: what a list's `<template>` is rendered from, for the browser to clone."""

    def __missing__(self, key: str) -> Blank:
        return Blank()

    def __str__(self) -> str:
        return ""

    def __iter__(self) -> Iterator[str]:
        return iter(())


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(str(files("web") / "templates"))),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": numbers.count,
        "number": numbers.number,
        "size": numbers.size,
        "visible": text.visible,
        "pieces": text.pieces,
    }
    environment.globals |= {"BLANK": Blank(), "MARKS": MARKS, "words": words}
    return environment


def render(template: str, **context: Any) -> str:
    """The template `templates/<template>` with `context`; a name that it lacks is an error, not an empty string."""
    return _environment().get_template(template).render(**context)
