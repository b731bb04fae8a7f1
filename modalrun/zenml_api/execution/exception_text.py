"""Give an exception of user code a text that ZenML can record, and leave its class as it is."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator

from modalrun.util.text import without_surrogates


def require_text(error: BaseException) -> None:
    """Escape lone surrogates in the texts of an exception and of those that led to it.

    Raises:
        RuntimeError: It stands for an exception that has no text, or keeps one that no encoding
            takes. ZenML could not record that one.
    """
    name = type(error).__name__
    try:
        text = str(error)
    except BaseException as second:
        told = f"{name}, whose text can't be made: {type(second).__name__}"
        raise RuntimeError(told).with_traceback(error.__traceback__) from None
    if _is_encodable(error):
        return
    for one in _chain(error):
        one.args = tuple(
            without_surrogates(value) if isinstance(value, str) else value for value in one.args
        )
        if notes := getattr(one, "__notes__", None):
            notes[:] = [without_surrogates(str(note)) for note in notes]
    if not _is_encodable(error):
        told = f"{name}: {without_surrogates(text)}"
        raise RuntimeError(told).with_traceback(error.__traceback__) from None


@contextlib.contextmanager
def text_required() -> Iterator[None]:
    """Raise what the block raises, or what stands for it; see `require_text`."""
    try:
        yield
    except BaseException as error:
        require_text(error)
        raise


def _is_encodable(error: BaseException) -> bool:
    try:
        "".join([str(error), *traceback.format_exception(error)]).encode()
    except UnicodeEncodeError:
        return False
    return True


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all that its traceback shows with it."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        left += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
