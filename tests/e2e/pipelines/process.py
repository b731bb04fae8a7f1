"""A module with the name of one of modalrun's, and a type of its own."""

from dataclasses import dataclass

from zenml import pipeline, step


@dataclass
class Note:
    """What one step tells the next."""

    text: str


@step
def write() -> Note:
    """Tell."""
    return Note("from the first")


@step
def read(note: Note) -> None:
    """Print what was told, and how many runs this process has found in memory."""
    from modalrun.zenml_api.execution import steps

    print("a note", note.text, "in a run of", len(steps._ahead), flush=True)


@pipeline(enable_cache=False)
def passes() -> None:
    """Pass an object of the module's own type on, twice."""
    before: list[str] = []
    for number in range(2):
        note = write(id=f"write_{number}", after=before)
        read(note, id=f"read_{number}")
        before = [f"read_{number}"]
