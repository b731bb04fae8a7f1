"""The exit codes are a contract with CI jobs (docs/troubleshooting.md)."""

import pytest

from modalrun import errors

CODES = {
    "RunFailedError": 1,
    "UsageError": 2,
    "AuthenticationError": 3,
    "NotFoundError": 4,
    "NoRunError": 4,
    "CapacityError": 5,
    "ConflictError": 5,
    "RunTimeoutError": 6,
    "RunStoppedError": 7,
    "ConnectionLostError": 8,
    "MachineError": 8,
    "ServerError": 8,
    "UnknownOutcomeError": 9,
    "CostLimitError": 10,
    "InternalError": 70,
}


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_exit_code(name: str, code: int) -> None:
    assert getattr(errors, name).exit_code == code


def test_every_error_is_in_the_table() -> None:
    # By module: other tests' and modules' subclasses don't count.
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type)
        and issubclass(value, errors.ModalrunError)
        and value is not errors.ModalrunError
    }
    assert defined == set(CODES)


def test_message_and_hint() -> None:
    error = errors.UsageError("what happened", hint="what to do")
    assert (str(error), error.message, error.hint) == (
        "what happened",
        "what happened",
        "what to do",
    )
    assert errors.UsageError("alone").hint is None


def test_the_effect_is_part_of_the_message_and_can_be_left_out() -> None:
    error = errors.NotFoundError("What happened.", effect="Nothing was created.", hint="do")
    assert str(error) == error.message == "What happened. Nothing was created."
    assert (error.problem, error.effect) == ("What happened.", "Nothing was created.")


def test_sentences_of_an_error_do_not_run_together() -> None:
    error = errors.NotFoundError("Modal: no such app", effect="Nothing was created.")
    assert error.message == "Modal: no such app. Nothing was created."
    error = errors.NotFoundError("Two:\n  - a\n  - b.", effect="Nothing was created.")
    assert error.message == "Two:\n  - a\n  - b.\nNothing was created."


def test_a_rate_limit_is_an_attribute() -> None:
    assert errors.CapacityError("too fast", rate_limited=True).rate_limited
    assert not errors.CapacityError("no GPU").rate_limited


def test_except_exception_does_not_catch_an_interruption() -> None:
    assert errors.Interrupted().exit_code == 143
    assert not issubclass(errors.Interrupted, Exception)
