"""What is done to log bytes before they reach a terminal."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalrun.output.terminal.sanitize import harmless
from modalrun.util.line_assembler import LineAssembler

COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
PIECES = st.sampled_from(
    [
        *("\x1b", "\x1b[", "\x1b]", "\x1bP", "\x1b\\", "\x9b", "\x9d", "\x9c", "\x07", "\r", "\0"),
        *("\x1b[31m", "\x1b[0m", "\x1b[1;4:3m", "\x1b[2J", "\x1b[10;5H", "\x1b]0;title\x07", "0;1"),
        *(
            "\u202e",
            "\u2066",
            "\ue000",
            "\x7f",
            "\x85",
            "[",
            "]",
            "m",
            "31m",
            "text",
            "é",
            "😀",
            "\t",
        ),
    ]
)
NASTY = st.lists(PIECES | st.characters(exclude_characters="\n", exclude_categories=["Cs"])).map(
    "".join
)
BIDI = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def controls(text: str) -> set[str]:
    return {c for c in text if (unicodedata.category(c) == "Cc" and c != "\t") or c in BIDI}


@given(line=NASTY)
def test_nothing_but_text_is_left(line: str) -> None:
    assert controls(harmless(line, colours=False)) == set()


@given(line=NASTY)
def test_nothing_but_text_and_colours_is_left(line: str) -> None:
    assert controls(COLOUR.sub("", harmless(line, colours=True))) == set()


@given(line=NASTY, colours=st.booleans())
def test_idempotent(line: str, colours: bool) -> None:
    once = harmless(line, colours=colours)
    assert harmless(once, colours=colours) == once


@given(line=NASTY)
def test_colours_are_all_that_differs(line: str) -> None:
    assert COLOUR.sub("", harmless(line, colours=True)) == harmless(line, colours=False)


@given(
    # Four letters of Hangul are blank.
    line=st.text(
        st.characters(
            categories=["L", "N", "P", "S", "Zs"], exclude_characters="\u115f\u1160\u3164\uffa0"
        )
    )
)
def test_plain_text_stays_as_it_is(line: str) -> None:
    assert harmless(line, colours=True) == line


@pytest.mark.parametrize(
    ("line", "plain"),
    [
        ("before\x1b]0;a title\x07after", "beforeafter"),
        ("before\x1b]2;a title\x1b\\after", "beforeafter"),
        ("\x1b]8;;https://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;cm0gLXJm\x07", ""),
        ("up\x1b[1A\x1b[2Kdone", "updone"),
        ("\x1b[2J\x1b[H\x1b[?25l\x1b[?1049hx", "x"),
        ("\x1b[6nreport", "report"),
        ("\x1bPq#0;2;0;0;0\x1b\\after", "after"),
        ("\x1b(0lqk\x1b(B", "lqk"),
        ("\x1bcreset", "reset"),
        ("\x1b7\x1b8\x1bM\x1bDmoved", "moved"),
        ("\x90dcs\x9cafter", "after"),
        ("\x9d0;title\x9cafter", "after"),
        ("a\x85b\x84c", "abc"),
        ("\u202egnp.exe", "gnp.exe"),
        ("a\u2066b\u2069c", "abc"),
        ("a\0b\x08c\x7f", "abc"),
        ("bell\x07", "bell"),
        ("vt\x0bff\x0c", "vtff"),
        ("cut off \x1b[31", "cut off 31"),
        ("\x1b", ""),
        ("tab\tstays", "tab\tstays"),
        ("\x1b\x1b[31m[2Jx", "[2Jx"),
        ("private \ue000\x1b[1muse", "private \ue000use"),
    ],
)
def test_sequences(line: str, plain: str) -> None:
    assert harmless(line, colours=False) == plain


@pytest.mark.parametrize(
    "line",
    [
        "\x1b[31mred\x1b[0m",
        "\x1b[1;38;5;208mbold orange\x1b[m",
        "\x1b[38;2;200;100;50mtrue colour",
        "\x1b[4:3mcurly",
    ],
)
def test_colours(line: str) -> None:
    assert harmless(line, colours=True) == line
    assert "\x1b" not in harmless(line, colours=False)


def test_colours_keep_their_order_and_place() -> None:
    line = "\x1b[31ma\x1b[2K\x1b[32mb\0c\x1b[0m"
    assert harmless(line, colours=True) == "\x1b[31ma\x1b[32mbc\x1b[0m"


@pytest.mark.parametrize("line", ["\x9b31mtext", "\x9b2Jtext"])
def test_text_behind_an_8_bit_sequence_is_kept(line: str) -> None:
    assert harmless(line, colours=False) == "text"


def test_text_behind_an_8_bit_title_is_kept() -> None:
    assert harmless("\x9d0;title\x07text", colours=False) == "text"


@pytest.mark.parametrize(
    ("sequence", "kept"),
    [
        ("8", ""),
        ("08", ""),
        ("1;8;31", "1;31"),
        ("30;40", ""),  # black on black
        ("37;107", ""),
        ("31;41", "31"),
        ("7;30", ""),
        ("38;5;0", ""),
        ("38;5;16", ""),
        ("38;5;232;48;5;232", ""),
        ("38;5;8", ""),
        ("38;5;196", "38;5;196"),
        ("38;2;1;2;3", ""),
        ("38;2;255;255;255", ""),
        ("48;2;1;8;31;32", "32"),
        ("38;2;1", ""),
        ("38:2::0:0:0", ""),
        ("38;5;999999999999", ""),
        ("5;6", ""),
        ("0;1;2;3;4;9;22;39", "0;1;2;3;4;9;22;39"),
        ("", ""),
    ],
)
def test_colours_can_not_hide_text(sequence: str, kept: str) -> None:
    shown = f"\x1b[{kept}m" if kept or not sequence else ""
    assert harmless(f"\x1b[{sequence}mtext", colours=True) == f"{shown}text"


@pytest.mark.parametrize(
    ("line", "last"),
    [
        (" 10%\r 50%\r100%", "100%"),
        (" 10%\r100%\r", "100%"),
        ("windows\r", "windows"),
        ("windows\r\r", "windows"),
        ("\r\x1b[32m100%\x1b[0m", "100%"),
        ("\r", ""),
    ],
)
def test_last_state_of_a_progress_bar(line: str, last: str) -> None:
    assert harmless(line, colours=False) == last


# LineAssembler


def assembled(pieces: list[str], limit: int = 65_536) -> list[str]:
    assembler = LineAssembler(limit)
    lines = [line for piece in pieces for line in assembler.feed(piece)]
    return lines + assembler.flush()


@st.composite
def split(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A text, and the same text in pieces."""
    text = draw(st.text(st.sampled_from("ab\n\r é"), max_size=60))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return text, [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@given(case=split())
def test_any_split_gives_the_same_lines(case: tuple[str, list[str]]) -> None:
    text, pieces = case
    expected = text.split("\n")
    if expected[-1] == "":
        expected.pop()
    assert assembled(pieces) == assembled([text]) == expected


@given(case=split(), limit=st.integers(1, 10))
def test_nothing_is_lost_or_reordered_at_the_limit(case: tuple[str, list[str]], limit: int) -> None:
    text, pieces = case
    assert "".join(assembled(pieces, limit)) == text.replace("\n", "")


@given(case=split(), limit=st.integers(1, 10))
def test_any_split_gives_the_same_lines_at_the_limit(
    case: tuple[str, list[str]], limit: int
) -> None:
    text, pieces = case
    assert assembled(pieces, limit) == assembled([text], limit)


def test_a_long_line_that_came_whole_is_passed_on_in_parts() -> None:
    assert assembled(["abcdefgh\nij"], 5) == ["abcde", "fgh", "ij"]


def test_lines_come_as_soon_as_they_are_complete() -> None:
    assembler = LineAssembler()
    assert assembler.feed("a") == []
    assert assembler.feed("b\nc") == ["ab"]
    assert assembler.feed("\n\n") == ["c", ""]
    assert assembler.flush() == []
    assert assembler.feed("d") == []
    assert assembler.flush() == ["d"]
    assert assembler.flush() == []


def test_a_line_without_end_is_passed_on_in_parts() -> None:
    assembler = LineAssembler(limit=1_000)
    passed_on = 0
    for number in range(1, 501):
        passed_on += sum(map(len, assembler.feed("x" * 100)))
        assert number * 100 - passed_on <= 1_000, "no more than the limit is kept"
    assert passed_on + sum(map(len, assembler.flush())) == 50_000
