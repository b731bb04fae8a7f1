"""Lines that fit a terminal."""

import pytest

from modalrun.output.terminal.wrapping import NO_BREAK, wrapped, wrapped_in_colour


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("a b c", None, ["a b c"]),
        ("short", 20, ["short"]),
        ("", 20, [""]),
        ("one two three four", 10, ["one two", "  three", "  four"]),
        # Clear of the label, of the dash, of the blanks.
        (
            "  box  sb-1 (app one, cpu 2)",
            20,
            ["  box  sb-1 (app", "       one, cpu 2)"],
        ),
        ("  at once    one two three", 20, ["  at once    one two", "  three"]),
        ("  - some words here", 14, ["  - some words", "    here"]),
        ("    some words here", 14, ["    some words", "    here"]),
        ("  label  a few_longer_words here", 18, ["  label  a", "  few_longer_words", "  here"]),
        # Copied from a terminal these are whole.
        (
            "see https://example.com/a-long-path now",
            20,
            ["see", "  https://example.com/a-long-path", "  now"],
        ),
        ("  status  modalrun status 0123456789", 20, ["  status  modalrun status 0123456789"]),
        ("    modalrun resume 0123456789", 20, ["    modalrun resume 0123456789"]),
        (
            "it can't go on: 'modalrun resume 01' does",
            27,
            ["it can't go on:", "  'modalrun resume 01' does"],
        ),
        # Any other word is broken, clear of the label.
        ("  label  " + "x" * 25, 20, ["  label  " + "x" * 11, " " * 9 + "x" * 11, " " * 9 + "xxx"]),
        (
            "a " + "x" * 25 + " a/long/path/of/a/file",
            20,
            ["a", "  " + "x" * 25, "  a/long/path/of/a/file"],
        ),
        ("\t" * 20, 10, [""]),
        (f"one two{NO_BREAK}three", 10, ["one", "  two three"]),
        # Below a line of code that is broken, a traceback's marks keep their place.
        ("    " + "~" * 8 + "^" * 20, 16, ["    ~~~~~~~~^^^^"]),
    ],
)
def test_wrapped(text: str, width: int | None, lines: list[str]) -> None:
    assert wrapped(text, width) == lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one two three", ["one two", "three"]),
        (
            "\x1b[31mone \x1b[1mtwo\x1b[0m\x1b[31m three\x1b[0m",
            ["\x1b[31mone \x1b[1mtwo", "\x1b[0m\x1b[31mthree\x1b[0m"],
        ),
        (f"\x1b[31mone{NO_BREAK}two  three four\x1b[0m", ["\x1b[31mone two", "three four\x1b[0m"]),
        ("\x1b[31m\x1b[0m", ["\x1b[31m\x1b[0m"]),
        # Blanks for which there is no room.
        ("\x1b[31m" + "\t" * 20 + "\x1b[0m", ["\x1b[31m\x1b[0m"]),
        ("\x1b[31m" + "\u3000" * 20, ["\x1b[31m"]),
        ("one \x1b[31m" + "x/" * 6 + "  \x1b[0m", ["one", "\x1b[31m" + "x/" * 6 + "\x1b[0m"]),
        ("one \x1b[31m" + "x" * 12 + "\x1b[0m", ["one \x1b[31mxxxxxx", "xxxxxx\x1b[0m"]),
    ],
)
def test_colours_take_no_room(text: str, lines: list[str]) -> None:
    assert wrapped_in_colour(text, 10) == lines
