"""How a source tree differs from what a run was submitted with."""

from __future__ import annotations

from modalrun.run.source import MOST_FILES
from modalrun.submit.source.changes import Changes, compare, hashes_to_store
from modalrun.util.text import listing

A, B = "a" * 64, "b" * 64
SUBMITTED = {"a.py": A, "b.py": B, "run.sh": f"{A}+x"}


def test_nothing_has_changed() -> None:
    assert compare(hashes_to_store(SUBMITTED), SUBMITTED, SUBMITTED) == Changes()


def test_what_is_new_is_neither_changed_nor_missing() -> None:
    found = compare(hashes_to_store(SUBMITTED), SUBMITTED, [*SUBMITTED, "resume.out"])
    assert found == Changes(new=("resume.out",))


def test_changed_and_missing_files() -> None:
    now = {"a.py": B, "run.sh": A}
    found = compare(hashes_to_store(SUBMITTED), now, [*now, "new.py"])
    assert found == Changes(changed=("a.py", "run.sh"), missing=("b.py",), new=("new.py",))
    assert str(found) == "a.py (changed), run.sh (changed), b.py (missing)", "new ones may be there"


def test_a_file_that_would_no_longer_be_submitted_is_still_there() -> None:
    assert compare(hashes_to_store(SUBMITTED), SUBMITTED, ["a.py"]) == Changes()


def test_five_are_named() -> None:
    changes = Changes(changed=tuple("abcd"), missing=tuple("efg"))
    assert str(changes).endswith("d (changed), e (missing) and 2 more")
    assert listing("abcde") == "a, b, c, d, e"


def test_what_is_kept_is_short() -> None:
    assert hashes_to_store(SUBMITTED) == {
        "a.py": "a" * 12,
        "b.py": "b" * 12,
        "run.sh": "a" * 12 + "+x",
    }


def test_of_very_many_files_nothing_is_hashes_to_store() -> None:
    most = MOST_FILES
    assert len(hashes_to_store({str(n): A for n in range(most)})) == most
    assert hashes_to_store({str(n): A for n in range(most + 1)}) == {}
