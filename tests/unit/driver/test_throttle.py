"""How much of a redrawn line is passed on."""

from hypothesis import given
from hypothesis import strategies as st

from modalrun.driver.lines.throttle import PAUSE, Throttle
from modalrun.util.redraws import state

PIECES = st.lists(
    st.tuples(
        st.one_of(
            st.text(st.sampled_from("ab\n\r%"), max_size=8).map(str.encode),
            st.sampled_from([b"\x1b[A", b"\n\r1", b"\x1e#1#ab{}\n"]),
        ),
        st.floats(0, 1),
    )
)


@given(PIECES)
def test_no_line_is_lost_and_each_has_its_last_state(pieces: list[tuple[bytes, float]]) -> None:
    throttle, now, passed = Throttle(), 0.0, b""
    for data, pause in pieces:
        now += pause
        if throttle.due is not None and throttle.due <= now:
            passed += throttle.rest()
        passed += throttle.feed(data, now)
    passed += throttle.rest()

    def states(text: bytes) -> list[str]:
        # Down again after up: nothing has moved.
        folded = text.decode().replace("\x1b[A\n", "\r")
        return [state(line) for line in folded.split("\n")]

    given_text = b"".join(data for data, _ in pieces)
    if b"\x1b[A" not in given_text:
        assert states(passed) == states(given_text)
    events = [line for line in passed.split(b"\n") if b"\x1e#" in line]
    assert len(events) == given_text.count(b"\x1e#"), "no event of a process is dropped"


def test_a_flood_becomes_a_few_states_a_second() -> None:
    throttle, passed = Throttle(), []
    for number in range(100_000):
        now = number / 10_000
        if throttle.due is not None and throttle.due <= now:
            passed.append(throttle.rest())
        passed.append(throttle.feed(b"\r%d" % number, now))
    shown = [piece for piece in passed if piece]
    assert len(shown) <= 2 * 10 / PAUSE
    assert shown[0] == b"\r0"
    assert throttle.due is not None and throttle.rest() == b"\r99999", "the last one passes"
    assert throttle.feed(b"\n", 10) == b"\n"


def test_a_nested_bar_is_one_line_although_it_goes_up_and_down() -> None:
    throttle = Throttle()
    passed = throttle.feed(b"\n\r1%\x1b[A", 0)
    for percent in range(2, 100):
        passed += throttle.feed(b"\n\r%d%%\x1b[A" % percent, percent)
    assert passed.count(b"\n") == 1


def test_ordinary_output_passes_at_once() -> None:
    throttle = Throttle()
    assert throttle.feed(b"\r1%", 0) == b"\r1%"
    for data in (b" and more", b"\nline\n", b"windows\r\n", b"unfinished"):
        assert throttle.feed(data, 0) == data
    long = b"\r" + b"x" * 70_000
    assert throttle.feed(long, 0.1) == long
