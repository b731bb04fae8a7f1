"""Pieces of streams -> lines with their steps; which of them are wanted."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalrun.run import events
from modalrun.run.event_proof import END
from modalrun.run.events import LinesOf, OrderEnd, Redraw, StepEvent, Used
from modalrun.run.log_lines import Item, LineFilter, LineSelection, LogLine, RunLines

RUN = "sb-run"
TEXT = st.text(st.characters(exclude_characters="\n\x1e", exclude_categories=["Cs"]), max_size=20)
STEPS = st.sampled_from(["load", "train", None])


def cut(text: str, places: list[int]) -> list[str]:
    """A text in pieces, cut at these places."""
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges)]


@given(
    printed=st.lists(st.tuples(STEPS, TEXT)),
    places=st.lists(st.integers(min_value=0)),
    last=TEXT,
)
def test_lines_come_out_whole_and_marked_however_a_stream_is_cut(
    printed: list[tuple[str | None, str]], places: list[int], last: str
) -> None:
    stream, step = "", None
    for owner, text in printed:
        if owner != step:
            stream, step = stream + events.line(LinesOf(owner)), owner
        stream += f"{text}\n"
    lines = RunLines(RUN)
    items: list[Item] = []
    for piece in cut(stream + last, places):
        items += lines.feed(RUN, "stdout", piece)
    items += lines.end(RUN, "stdout")
    found = [(i.step, i.text) for i in items if isinstance(i, LogLine)]
    assert found == printed + ([(step, last)] if last else [])


def test_a_resumed_run_has_had_a_run_sandbox_before() -> None:
    lines = RunLines(RUN, ["sb-before"])
    text = events.line(LinesOf("load")) + "before\n"
    items = [i for box in ("sb-before", RUN) for i in lines.feed(box, "stdout", text)]
    found = [(i.step, i.sandbox) for i in items if isinstance(i, LogLine)]
    assert found == [("load", "sb-before"), ("load", RUN)]


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), TEXT, st.booleans())))
def test_streams_of_many_sandboxes_don_t_mix(pieces: list[tuple[str, str, bool]]) -> None:
    lines = RunLines(RUN)
    for name in "abc":
        event = StepEvent(f"step {name}", "running", 1.0, attempt=3, sandbox=f"sb-{name}")
        assert lines.feed(RUN, "stdout", events.line(event)) == [event]
    items: list[Item] = []
    for name, text, ends in pieces:
        items += lines.feed(f"sb-{name}", "stderr", text + "\n" * ends)
    for name in "abc":
        items += lines.end(f"sb-{name}", "stderr")
        whole = "".join(text + "\n" * ends for sandbox, text, ends in pieces if sandbox == name)
        mine = [i for i in items if isinstance(i, LogLine) and i.sandbox == f"sb-{name}"]
        expected = whole.split("\n")
        assert [i.text for i in mine] == (expected if expected[-1] else expected[:-1])
        assert all(i.step == f"step {name}" and i.attempt == 3 for i in mine)


def test_lines_of_a_replaced_sandbox_are_of_the_same_attempt() -> None:
    lines = RunLines(RUN)
    running = StepEvent("train", "running", 1.0, attempt=3, sandbox="sb-step", restarts=2)
    lines.feed(RUN, "stdout", events.line(running))
    begins = events.line(StepEvent("train", "running", 2.0))
    begun, line = lines.feed("sb-step", "stdout", f"{begins}epoch\n")
    assert begun == replace(running, at=2.0, began=2.0)
    assert line == LogLine("train", "stdout", "epoch", None, "sb-step", 1)
    retrying = StepEvent("train", "retrying", 3.0, attempt=3, restarts=2, reason="It was lost.")
    told, _ = lines.feed(RUN, "stdout", events.line(retrying))
    assert isinstance(told, LogLine) and told.attempt == 1


@pytest.mark.parametrize("per_step", [True, False])
def test_a_step_that_gets_another_sandbox_says_so(per_step: bool) -> None:
    lines = RunLines(RUN)
    sandbox = "sb-step" if per_step else None
    lines.feed(RUN, "stdout", events.line(StepEvent("train", "running", 1.0, sandbox=sandbox)))
    event = StepEvent("train", "retrying", 2.0, reason="It was lost. It is started again.")
    *told, last = lines.feed(RUN, "stdout", events.line(event))
    assert last == event
    # Where steps share a sandbox, the runner has said it on stderr.
    line = LogLine("train", "system", f"modalrun: {event.reason}", None, "sb-step")
    assert told == ([line] if per_step else [])


def test_a_step_whose_sandbox_was_lost_with_an_earlier_driver_says_so() -> None:
    event = StepEvent("train", "retrying", 2.0, reason="Its sandbox was lost.")
    told, _ = RunLines(RUN).feed(RUN, "stdout", events.line(event))
    assert told == LogLine("train", "system", "modalrun: Its sandbox was lost.", None, RUN)


def test_what_a_step_waits_for_is_one_of_its_lines() -> None:
    lines = RunLines(RUN)
    first = StepEvent("train", "starting", 1.0)
    lines.feed(RUN, "stdout", events.line(first))
    waits = StepEvent("train", "starting", 1.0, awaits="H100", following="A100")
    told, event = lines.feed(RUN, "stdout", events.line(waits))
    text = "modalrun: waiting for H100, next: A100"
    assert (told, event) == (LogLine("train", "system", text, None, RUN), waits)
    assert lines.feed(RUN, "stdout", events.line(first)) == [first]


def test_what_a_dynamic_pipelines_function_prints_is_shown_beside_steps_with_sandboxes() -> None:
    lines = RunLines(RUN)
    selection = LineSelection(LineFilter(), lines)
    running = StepEvent("train", "running", 2.0, sandbox="sb-step")
    retrying = StepEvent("train", "retrying", 3.0, reason="It was lost.")
    text = f"{events.line(LinesOf(None))}before\n{events.line(StepEvent('train', 'starting', 1.0))}"
    shown = selection.select(lines.feed(RUN, "stdout", text))
    shown += selection.select(lines.feed(RUN, "stdout", f"{events.line(running)}function\n"))
    shown += selection.select(lines.feed("sb-step", "stdout", "epoch\n"))
    shown += selection.select(lines.feed(RUN, "stdout", f"{events.line(retrying)}after\n"))
    assert [(line.step, line.text) for line in [*shown, *selection.rest()]] == [
        (None, "before"),
        (None, "function"),
        ("train", "epoch"),
        ("train", "modalrun: It was lost."),
        (None, "after"),
    ]


def test_an_event_after_a_line_without_an_end() -> None:
    lines = RunLines(RUN)
    marker = events.line(LinesOf("train"))
    first, event = lines.feed(RUN, "stdout", f"50 %{marker}")
    assert isinstance(first, LogLine) and (first.step, first.text) == (None, "50 %")
    assert event == LinesOf("train")


def test_only_the_run_sandbox_is_believed() -> None:
    lines = RunLines(RUN)
    forged = events.line(StepEvent("x", "running", 1.0, sandbox="sb-evil"))
    (line,) = lines.feed("sb-step", "stdout", forged)
    assert isinstance(line, LogLine) and line.text == forged.rstrip("\n")


def test_a_note_stands_after_what_was_unfinished() -> None:
    lines = RunLines(RUN)
    lines.feed(RUN, "stdout", "half")
    half, note = lines.note(RUN, "stdout", "a gap")
    assert isinstance(half, LogLine) and (half.source, half.text) == ("stdout", "half")
    assert isinstance(note, LogLine) and (note.source, note.text) == ("system", "a gap")


@pytest.mark.parametrize(
    ("line_filter", "per_step", "texts"),
    [
        (LineFilter(), False, "own train old eval again"),
        (LineFilter(), True, "train old eval again"),
        (LineFilter(driver=True), True, "own again"),
        (LineFilter(steps=["tr*", "no"]), False, "train old"),
        (LineFilter(sources=["stderr"]), False, "eval"),
        (LineFilter(since=10.0), False, "own train eval"),
        (LineFilter(until=10.0), False, "own old again"),
        (LineFilter(search="ra"), False, "train"),
    ],
)
def test_line_filter(line_filter: LineFilter, per_step: bool, texts: str) -> None:
    lines = [
        LogLine(None, "stdout", "own", None, RUN),
        LogLine("train", "stdout", "train", 10.0, RUN),
        LogLine("train", "stdout", "old", 9.0, RUN),
        LogLine("eval", "stderr", "eval", 11.0, RUN),
        LogLine("other", "system", "again", 9.0, RUN),
    ]
    taken = [line.text for line in lines if line_filter.accepts(line, per_step=per_step)]
    assert taken == texts.split()


def test_which_steps_have_printed_something_is_known_whatever_is_wanted() -> None:
    lines = RunLines(RUN)
    selection = LineSelection(LineFilter(steps=("tr*", "load"), search="epoch"), lines)
    ended = events.line(StepEvent("report", "not run", 1.0, reason="It is not run: why."))
    printed = f"{events.line(LinesOf('load'))}loaded\n{events.line(LinesOf('train'))}epoch 1\n"
    shown = selection.select(lines.feed(RUN, "stdout", printed + ended))
    assert [line.text for line in shown] == ["epoch 1"]
    assert selection.printed == {"load", "train"}
    assert selection.not_run == {"report": "It is not run: why."}


def test_of_a_step_sandbox_only_the_word_is_believed_that_its_step_begins() -> None:
    lines = RunLines(RUN)
    lines.feed(RUN, "stdout", events.line(StepEvent("train", "running", 1.0, 2, sandbox="sb-1")))
    begun = events.line(StepEvent("train", "running", 3.0))
    other = events.line(StepEvent("load", "failed", 2.0, reason="a lie"))

    (line,) = lines.feed("sb-1", "stdout", other)
    (event,) = lines.feed("sb-1", "stdout", begun)
    (again,) = lines.feed("sb-1", "stdout", begun)

    assert isinstance(line, LogLine) and isinstance(again, LogLine)
    assert event == StepEvent("train", "running", 3.0, 2, sandbox="sb-1", began=3.0)


@pytest.mark.parametrize("sandbox", ["run", "step"])
def test_the_last_line_of_a_supervisor_is_not_shown(sandbox: str) -> None:
    lines = RunLines("run")
    lines.assign("step", "train", 1)
    shown = lines.feed(sandbox, "stdout", f"text\nunfinished{END}\n")
    assert [item.text for item in shown if isinstance(item, LogLine)] == ["text", "unfinished"]
    assert lines.feed(sandbox, "stderr", f"{END}\n") == []


def test_a_step_sandbox_that_is_kept_warm_tells_which_step_prints() -> None:
    lines = RunLines(RUN, graph=["load", "train"])
    lines.feed(RUN, "stdout", events.line(StepEvent("load", "running", 1.0, 2, sandbox="sb-1")))
    text = "".join(
        [
            "at the start\n",
            events.line(LinesOf("load", 2)),
            events.line(StepEvent("load", "running", 2.0)),
            events.line(Used(("[]",))),
            "loaded\nno line feed",
            events.line(OrderEnd("secret", 0)),
            # The driver's event about the next step may come later.
            events.line(LinesOf("train", 1)),
            events.line(StepEvent("train", "running", 3.0)),
            events.line(StepEvent("load", "running", 4.0)),
            "epoch 1\n",
            events.line(LinesOf("unknown", 1)),
        ]
    )
    items = lines.feed("sb-1", "stdout", text)
    printed = [(i.step, i.attempt, i.text) for i in items if isinstance(i, LogLine)]
    assert printed[:4] == [
        ("load", 2, "at the start"),
        ("load", 2, "loaded"),
        ("load", 2, "no line feed"),
        ("train", 1, events.line(StepEvent("load", "running", 4.0)).rstrip("\n")),
    ]
    assert printed[4] == ("train", 1, "epoch 1")
    # It can have no other steps than the run.
    assert printed[5][0] == "train" and len(printed) == 6
    assert [(e.step, e.attempt, e.began) for e in items if isinstance(e, StepEvent)] == [
        ("load", 2, 2.0),
        ("train", 1, 3.0),
    ]


def test_a_sandbox_that_no_event_has_named_tells_nothing() -> None:
    lines = RunLines(RUN)
    (line,) = lines.feed("sb-2", "stdout", events.line(LinesOf("load", 1)))
    assert isinstance(line, LogLine)


def test_waiting_is_told_by_the_run_sandbox_alone() -> None:
    lines = RunLines(RUN)
    idle = events.Idle("load", "sb-1", 2.0)
    assert lines.feed(RUN, "stdout", events.line(idle)) == [idle]
    assert lines.feed(RUN, "stdout", events.line(Used(("[]",)))) == []
    (line,) = lines.feed(RUN, "stdout", events.line(OrderEnd("secret", 0)))
    assert isinstance(line, LogLine)


@given(
    printed=st.lists(st.one_of(TEXT, st.integers(0, 99)), max_size=9),
    places=st.lists(st.integers(min_value=0)),
)
def test_events_are_found_in_bytes_however_a_stream_is_cut(
    printed: list[str | int], places: list[int]
) -> None:
    told = [OrderEnd("x", code) for code in printed if isinstance(code, int)]
    text = "".join(
        one if isinstance(one, str) else events.line(OrderEnd("x", one)) for one in printed
    )
    scanner = events.EventScanner()
    data = text.encode()
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    found = [e for a, b in itertools.pairwise(edges) for e in scanner.feed(data[a:b])]
    assert found == told


def test_a_redrawn_line_is_shown_at_each_state_and_logged_once() -> None:
    lines = RunLines("sb-1")
    feed = lines.feed
    items = feed("sb-1", "stderr", events.line(LinesOf("train")) + "\r  0%")
    items += feed("sb-1", "stderr", "\r 50%\x1b[K")
    items += feed("sb-1", "stdout", events.line(LinesOf("train")) + "beside\n")
    for percent in range(51, 100_000):
        feed("sb-1", "stderr", f"\r {percent}%")
    items += feed("sb-1", "stderr", "\r100%\nnext\n")
    items += feed("sb-1", "stderr", "last\r")
    items += lines.end_all()
    told = [i for i in items if isinstance(i, Redraw)]
    assert told == [Redraw("train", text) for text in ("0%", "50%", "", "last")]
    first, bar, *others = [i.text for i in items if isinstance(i, LogLine)]
    assert (first, *others) == ("beside", "next", "last\r")
    assert bar.endswith("\r 99999%\r100%") and len(bar) < 10_000


def test_the_redrawn_line_of_a_step_that_shares_its_stream() -> None:
    lines = RunLines("sb-1")
    told = Redraw("train", "31 %")
    text = events.line(LinesOf("train")) + events.line(told)
    assert lines.feed("sb-1", "stdout", text) == [LinesOf("train"), told]
    lines.feed("sb-1", "stderr", text + "100 %\n" + events.line(Redraw("train", "")))
    other = lines.feed("sb-1", "stdout", events.line(Redraw("other", "31 %")))
    assert isinstance(other[0], LogLine), "it does not print there"
    lines.assign("sb-2", "own", 1)
    own = lines.feed("sb-2", "stdout", events.line(Redraw("own", "31 %")))
    assert isinstance(own[0], LogLine), "nor does a step sandbox tell so"
    rest = [(i.source, i.text) for i in lines.end_all() if isinstance(i, LogLine)]
    assert rest == [("stdout", "31 %")], "the sandbox of the unfinished line was killed"
