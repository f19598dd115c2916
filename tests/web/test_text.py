"""Text from a log is shown, never obeyed."""

from __future__ import annotations

import pytest

from web.text import label, legible, pieces, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" the", "␣the"),
        ("a b ", "a b␣"),
        ("  ", "␣␣"),
        ("a\n\tb", "a↵⇥b"),
        ("\x00x", "‹0000›x"),
        ("\u202eevil", "‹202E›evil"),
        ("京é", "京é"),
        ("abcdef", "abcd…"),
        (None, ""),
    ],
)
def test_what_cannot_be_seen_is_made_visible(text: str | None, shown: str) -> None:
    assert visible(text, limit=4 if text == "abcdef" else 80) == shown


def test_plotly_gets_no_markup_and_no_tex() -> None:
    assert label("<a href='javascript:x'>&lt;</a>") == "&lt;a href='javascript:x'&gt;&amp;lt;&lt;/a&gt;"
    assert label("$x^2$") == "&#36;x^2&#36;"


def test_prose_keeps_its_lines_and_nothing_that_turns_them_round() -> None:
    assert legible("a\n\tb") == "a\n\tb"
    assert legible("a\u202eb\x1b[31m\u200b") == "a‹202E›b‹001B›[31m‹200B›"


def test_pieces_keep_every_character_in_order() -> None:
    text = " a\n\tb  \u202e"
    assert "".join(characters for _, characters in pieces(text)) == text
    assert [kind for kind, _ in pieces(text)] == [
        "space",
        "text",
        "newline",
        "tab",
        "text",
        "space",
        "space",
        "control",
    ]
