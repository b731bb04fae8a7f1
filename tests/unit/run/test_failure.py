"""Why a step has failed, from what ZenML stores of it."""

import signal
import sys

import pytest

from modalrun.driver.processes import death
from modalrun.driver.processes.process import Signals, Terminated
from modalrun.run import failure
from modalrun.run.contract import LAST_LINES
from modalrun.run.failure import Failure, read_failure, relative
from modalrun.util import line_ends

CODE = "/state/sandboxes/sb-01ABC/root/app/code"
TRACE = f"""  File "{CODE}/train.py", line 14, in train
    return clean(rate)
           ^^^^^^^^^^^
  File "{CODE}/lib/prep.py", line 3, in clean
    return table[rate]
           ~~~~~^^^^^^
KeyError: 'nothing'
"""


def test_an_exception_has_a_class_a_message_a_place_and_its_last_lines() -> None:
    found = read_failure(TRACE, "builtins.KeyError", "'nothing'")
    assert found == Failure(
        "'nothing'",
        "KeyError",
        "lib/prep.py:3",
        (
            '  File "train.py", line 14, in train',
            "    return clean(rate)",
            '  File "lib/prep.py", line 3, in clean',
            "    return table[rate]",
        ),
    )
    assert str(found) == "KeyError: 'nothing' (lib/prep.py:3)"


def test_what_calls_the_project_is_told_in_no_part_of_a_traceback() -> None:
    caller = '  File "/venv/zenml/steps/base_step.py", line 757, in call\n    return it()\n'
    cause = "\nThe above exception was the direct cause of the following exception:\n\n"
    begin = "Traceback (most recent call last):\n"
    second = TRACE.replace("KeyError", "LookupError").replace(", line 3", ", line 5")
    trace = f"{TRACE}{cause}{begin}{caller}{second}"
    found = read_failure(trace, "builtins.LookupError", "'nothing'")
    assert found is not None
    assert found.place == "lib/prep.py:5"
    assert found.trace == (
        '  File "train.py", line 14, in train',
        "    return clean(rate)",
        '  File "lib/prep.py", line 3, in clean',
        "    return table[rate]",
        "KeyError: 'nothing'",
        "The above exception was the direct cause of the following exception:",
        "Traceback (most recent call last):",
        '  File "train.py", line 14, in train',
        "    return clean(rate)",
        '  File "lib/prep.py", line 5, in clean',
        "    return table[rate]",
    )
    others = read_failure(f"{begin}{caller}KeyError: 'x'\n", "builtins.KeyError", "'x'")
    assert others is not None
    assert others.lines == (begin.strip(), *caller.rstrip().splitlines()), "it has no other lines"


def test_the_import_of_a_module_is_not_told() -> None:
    trace = (
        '  File "<frozen importlib._bootstrap>", line 1204, in _gcd_import\n'
        '  File "<frozen importlib._bootstrap_external>", line 940, in exec_module\n'
        f'  File "{CODE}/bad.py", line 4, in <module>\n    import missing\n'
        "ModuleNotFoundError: No module named 'missing'\n"
    )
    found = read_failure(trace, "builtins.ModuleNotFoundError", "No module named 'missing'")
    assert found and found.lines == ('  File "bad.py", line 4, in <module>', "    import missing")


def test_a_message_of_several_lines_keeps_them() -> None:
    trace = f'  File "{CODE}/a.py", line 1, in f\n    g()\nlib.errors.Bad: first\n  second\nthird\n'
    found = read_failure(trace, "lib.errors.Bad", "first\n  second\nthird")
    assert found and str(found) == "Bad: first (a.py:1)"
    # Together with its first line, which is told before.
    assert found.lines == ("  second", "third", '  File "a.py", line 1, in f', "    g()")
    text = "first\n" + "more\n" * 99
    found = read_failure(f"{TRACE}Bad: {text}", "lib.errors.Bad", text)
    assert found and found.lines == ("more",) * LAST_LINES


def test_an_exception_is_described_as_its_record_will_be_read() -> None:
    try:
        exec(compile("\n\nint('x')", f"{CODE}/steps/a.py", "exec"))
    except ValueError as error:
        found = Failure.of(error)
        told = failure.trace_of(error)
    assert found.kind == "ValueError" and found.place == "steps/a.py:3"
    read = read_failure(failure.with_lines("It took too long.", told), None, "It took too long.")
    assert read and str(read) == "It took too long. (steps/a.py:3)"


@pytest.mark.parametrize("code", ["def (:", "if True:\nnothing"])
def test_the_place_of_a_syntax_error_is_told_once(code: str) -> None:
    with pytest.raises(SyntaxError) as caught:
        compile(code, f"{CODE}/steps/a.py", "exec")
    place = f"a.py, line {caught.value.lineno}"
    assert place in str(caught.value)
    told = str(Failure.of(caught.value))
    assert told.endswith(f" (steps/a.py:{caught.value.lineno})")
    assert place not in told


def test_an_exception_without_a_text_is_described() -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    found = Failure.of(Unprintable())
    assert str(found) == "Unprintable: its text can't be made: RuntimeError"


def test_the_end_of_a_process_has_a_sentence_and_its_last_lines() -> None:
    printed = [f"line {n}" for n in range(8)]
    printed.append("  \x1b[37mline\x1b[0m 8")
    reason = "The step's process was killed (SIGKILL)."
    found = read_failure(failure.with_lines(reason, printed), None, reason)
    expected = (*printed[-LAST_LINES:-1], "  line 8")
    assert found == Failure(reason, lines=expected)
    assert str(found) == reason


def test_only_the_projects_own_code_is_where_a_step_was() -> None:
    signals = Signals()
    signals._unwinds = True
    code = compile("def wait():\n    signals(15, None)\n\nwait()", f"{CODE}/steps/a.py", "exec")
    try:
        exec(code, {"signals": signals})
    except Terminated as error:
        told = failure.trace_of(error)
    named = [line.partition('", ')[2] for line in told if "File" in line]
    assert named == ["line 4, in <module>", "line 2, in wait"]


def test_a_step_that_was_deep_in_a_library_has_its_own_line() -> None:
    signals = Signals()
    signals._unwinds = True
    library = "def call(n):\n    call_on(n - 1) if n else signals(15, None)\n"
    library += "def call_on(n):\n    call(n)\n"
    names = {"signals": signals}
    exec(compile(library, "/venv/lib/subprocess.py", "exec"), names)
    with pytest.raises(Terminated) as raised:
        exec(compile("\ncall(40)", f"{CODE}/a.py", "exec"), names)
    stored = failure.with_lines("It took too long.", failure.trace_of(raised.value))
    found = read_failure(stored, None, "It took too long.")
    assert found and str(found) == "It took too long. (a.py:2)"
    assert "subprocess.py" in found.lines[-1]


def test_what_a_step_prints_through_is_not_where_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signals = Signals()
    signals._unwinds = True
    monkeypatch.setattr(sys.stdout, "write", lambda _: signals(15, None))
    with pytest.raises(Terminated) as raised, line_ends.ended():
        exec(compile("\nprint('on')", f"{CODE}/a.py", "exec"))
    (line,) = failure.trace_of(raised.value)
    assert line == f'  File "{CODE}/a.py", line 2, in <module>'


@pytest.mark.parametrize(
    ("code", "out_of_memory", "shown"),
    [
        (3, False, 3),
        (-signal.SIGKILL, False, 137),
        (-signal.SIGKILL, True, 137),
        (-signal.SIGSEGV, False, 139),
        (-40, False, 168),
    ],
)
def test_the_exit_code_of_a_process_that_died(code: int, out_of_memory: bool, shown: int) -> None:
    said = death.describe("step's process", 1, code, {}, out_of_memory=out_of_memory)
    assert Failure(said).exit_code == shown
    assert Failure(said, "ValueError").exit_code is None
    assert Failure("The step took longer than its timeout of 20 s.").exit_code is None


def test_a_run_names_its_first_failed_step_and_counts_the_others() -> None:
    reasons = {"train": "ValueError: no (train.py:3)", "report": "KeyError"}
    first = "Step `train` failed: ValueError: no (train.py:3)"
    assert failure.of_steps({"train": reasons["train"]}) == first
    assert failure.of_steps(reasons) == f"{first}; 1 more step failed."
    assert failure.of_steps({**reasons, "b": "", "c": ""}) == f"{first}; 3 more steps failed."
    long = failure.of_steps({"train": "ValueError: " + 5000 * "x", "report": "KeyError"})
    assert len(long) == failure.RUN_REASON
    assert long.endswith("xxx...; 1 more step failed.")


@pytest.mark.parametrize(
    ("raised", "named"),
    [
        # The same exception, which a driver may know without its place.
        (Failure("no", "ValueError", "b.py:2"), "Step `b` failed: ValueError: no (b.py:2)"),
        (Failure("no", "ValueError"), "Step `b` failed: ValueError: no (b.py:2)"),
        # As ZenML makes a KeyError of the text of one.
        (Failure(repr("'rate'"), "KeyError"), "Step `c` failed: KeyError: 'rate'"),
        # As ZenML raises what was no exception.
        (Failure("It died.", "RuntimeError"), "Step `a` failed: It died."),
        (Failure("yes", "ValueError", "b.py:2"), None),
        (Failure("no", "TypeError", "b.py:2"), None),
    ],
)
def test_a_dynamic_run_names_the_step_whose_failure_its_function_has_raised(
    raised: Failure, named: str | None
) -> None:
    steps = {
        "a": Failure("It died."),
        "b": Failure("no", "ValueError", "b.py:2"),
        "c": Failure("'rate'", "KeyError"),
    }
    said = failure.of_raising_step(raised, steps)
    assert said == (named and f"{named}; 2 more steps failed.")
    assert failure.of_raising_step(raised, {}) is None


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (f'  File "{CODE}/lib/a b.py", line 3, in f', '  File "lib/a b.py", line 3, in f'),
        ('  File "/app/code/p.py", line 3', '  File "p.py", line 3'),
        # A sandbox that is kept warm has a copy of it for each step.
        ('  File "/app/.modalrun-fgmt_6pz/code/a/q.py", line 3', '  File "a/q.py", line 3'),
        ('  File "/tmp/.modalrun-fgmt_6pz/code/q.py", line 3', '  File "q.py", line 3'),
        (
            '  File "/s/sandboxes/sb-1/root/app/.modalrun-fgmt_6pz/code/q.py", line 3',
            '  File "q.py", line 3',
        ),
        ("/app/.modalrun-fgmt_6pz/code/p.py:12: UserWarning: old", "p.py:12: UserWarning: old"),
        # A folder of the project's own has the same name.
        (f'  File "{CODE}/app/code/p.py", line 3', '  File "app/code/p.py", line 3'),
        (f"{CODE}/p.py:12: UserWarning: old", "p.py:12: UserWarning: old"),
        ('  File "/usr/lib/python3/json.py", line 3', '  File "/usr/lib/python3/json.py", line 3'),
        (f"wrote {CODE}/model.bin", f"wrote {CODE}/model.bin"),
        ('  File "/home/app/code/p.py", line 3', '  File "/home/app/code/p.py", line 3'),
    ],
)
def test_a_path_in_a_traceback_is_relative_to_the_source_root(line: str, shown: str) -> None:
    assert relative(line) == shown


FRAMES = f"""Traceback (most recent call last):
  File "/usr/lib/python3.11/importlib/__init__.py", line 126, in import_module
  File "{CODE}/team/training.py", line 7, in <module>
  File "/usr/lib/python3.11/site-packages/other.py", line 9, in load
"""


@pytest.mark.parametrize(
    ("trace", "place"),
    [
        (f"{FRAMES}ImportError: no", "team/training.py:7"),
        ("ImportError: no", None),
        ('  File "/app/code/bad.py", line 3\n    def (\nImportError: no', "bad.py:3"),
        ('  File "/app/.modalrun-_6p/code/q.py", line 9, in bad\nImportError: no', "q.py:9"),
    ],
)
def test_the_last_line_of_the_project_is_the_place(trace: str, place: str | None) -> None:
    found = read_failure(trace, "builtins.ImportError", "no")
    assert found and found.place == place
