"""Texts that everything can show."""

from __future__ import annotations

import shlex

import pytest

from modalrun.util.text import shell_word


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("/a/plain.yaml", "/a/plain.yaml"),
        ("my dir/run.yaml", '"my dir/run.yaml"'),
        ("it's", '"it\'s"'),
        ("$HOME/my dir", "'$HOME/my dir'"),
    ],
)
def test_a_word_of_a_command_that_stands_in_quotes(text: str, quoted: str) -> None:
    assert shell_word(text) == quoted
    assert shlex.split(shell_word(text)) == [text]
