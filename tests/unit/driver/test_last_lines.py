"""The last lines that a process has printed."""

from modalrun.driver.lines.last_lines import LastLines
from modalrun.run.contract import LAST_LINES
from modalrun.run.event_proof import MARK


def test_the_last_lines_without_events() -> None:
    last = LastLines()
    for number in range(10_000):
        last.add(f"line {number}\n".encode())
    last.add(f'{MARK}#1#ab{{"modalrun": "step"}}\n\nhalf a li'.encode())
    last.add("ne \u20ac".encode()[:-1])
    expected = [f"line {n}" for n in range(10_000 - LAST_LINES + 1, 10_000)]
    assert last.lines() == [*expected, "half a line \ufffd"]
    assert last.encoded().decode().split("\n") == last.lines()
    of_step = f'{MARK}#2#cd{{"modalrun": "lines", "step": "b", "attempt": 1}}\n'.encode()
    last.add(b"\n" + of_step + b"of b\n" + of_step.replace(b"#2", b"#3") + b"more of b\n")
    assert last.lines() == ["of b", "more of b"]
    last.clear()
    assert last.lines() == []


def test_zenml_s_own_start_of_a_step_is_left_out() -> None:
    last = LastLines()
    last.add(
        b"\x1b[38;20mStep \x1b[1;36mtrain\x1b[0m has started.\x1b[0m\nStep train has started.\n"
    )
    last.add(b"Step 3 has started. Or not.\n")
    assert last.lines() == ["Step 3 has started. Or not."]


def test_a_progress_bar_pushes_nothing_out() -> None:
    last = LastLines()
    last.add(b"before\n")
    for number in range(10_000):
        last.add(f"\r{number:5} of 10,000".encode())
    assert last.lines() == ["before", " 9999 of 10,000"]
