"""Growing pauses between attempts."""

from itertools import islice

from modalrun.util.backoff import pauses


def test_each_pause_is_twice_the_one_before_up_to_a_limit() -> None:
    assert list(islice(pauses(1, 5), 5)) == [1, 2, 4, 5, 5]
