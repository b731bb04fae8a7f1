"""The report of the digits pipeline: one HTML page without scripts or other files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2733; background: #fff;
       max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .25rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.note { color: #5b6876; margin: .25rem 0 .75rem; }
table { border-collapse: separate; border-spacing: 2px; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right; }
th { font-weight: 600; color: #5b6876; }
.models th:first-child, .models td:first-child { text-align: left; }
.best td { background: #e3f1ea; font-weight: 600; }
.confusion td, .confusion th { width: 2.1rem; height: 2.1rem; padding: 0; text-align: center;
                               border-radius: 3px; }
.confusion caption { color: #5b6876; padding-bottom: .25rem; }
.confusion .margin { color: #5b6876; padding: 0 .5rem; width: auto; }
.mistakes { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; text-align: center; }
figcaption { color: #5b6876; font-size: .85rem; }
svg { border: 1px solid #cfd6dd; border-radius: 3px; }
"""


@dataclass(frozen=True)
class Mistake:
    """A digit that the model read wrong. The pixels are rows of ink, 0 to 1."""

    pixels: Sequence[Sequence[float]]
    actual: int
    predicted: int


def render(
    scores: dict[str, float],
    best: str,
    confusion: Sequence[Sequence[int]],
    mistakes: Sequence[Mistake],
) -> str:
    """Render the page.

    Args:
        scores: The accuracy of each model, by its name.
        best: The name of the model that was picked.
        confusion: Of the picked model, the count for each actual class (row) and predicted class.
        mistakes: The pictures to show.
    """
    tested = sum(map(sum, confusion))
    right = sum(row[i] for i, row in enumerate(confusion))
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Digits: {escape(best)}</title><style>{STYLE}</style></head>
<body>
<h1>{escape(best)} reads {right / tested:.1%} of the digits</h1>
<p class="note">{right} of {tested} digits that it was not trained on, {tested - right} wrong.</p>
<h2>Models</h2>
{_models(scores, best)}
<h2>Confusion matrix</h2>
{_confusion(confusion)}
<h2>Mistakes</h2>
{_mistakes(mistakes, total=tested - right)}
</body>
</html>
"""


def _models(scores: dict[str, float], best: str) -> str:
    def row(name: str) -> str:
        kind = "best" if name == best else "other"
        return f'<tr class="{kind}"><td>{escape(name)}</td><td>{scores[name]:.2%}</td></tr>'

    rows = _lines(row(name) for name in sorted(scores, key=scores.__getitem__, reverse=True))
    return f'<table class="models"><tr><th>Model</th><th>Accuracy</th></tr>{rows}</table>'


def _confusion(confusion: Sequence[Sequence[int]]) -> str:
    classes = range(len(confusion))
    right_at_most = max(confusion[i][i] for i in classes)
    wrong_at_most = max((confusion[i][j] for i in classes for j in classes if i != j), default=0)

    def cell(actual: int, predicted: int) -> str:
        count = confusion[actual][predicted]
        if actual == predicted:
            colour = _shade("21, 128, 90", count, right_at_most)
        else:
            colour = _shade("200, 60, 40", count, wrong_at_most)
        title = f"{count} of digit {actual} read as {predicted}"
        return f'<td style="background: {colour}" title="{title}">{count or ""}</td>'

    head = "".join(f"<th>{i}</th>" for i in classes)
    rows = (
        f"<tr><th>{i}</th>{''.join(cell(i, j) for j in classes)}"
        f'<td class="margin">{sum(confusion[i])}</td></tr>'
        for i in classes
    )
    columns = "".join(
        f'<td class="margin">{sum(row[j] for row in confusion)}</td>' for j in classes
    )
    total = sum(map(sum, confusion))
    return f"""<table class="confusion">
<caption>rows: what the digit is; columns: what the model read</caption>
<tr><th></th>{head}<th class="margin">total</th></tr>
{_lines(rows)}
<tr><th class="margin">total</th>{columns}<td class="margin">{total}</td></tr>
</table>"""


def _mistakes(mistakes: Sequence[Mistake], total: int) -> str:
    if not total:
        return '<p class="note">None.</p>'
    figures = (
        f"<figure>{_picture(mistake.pixels)}"
        f"<figcaption>{mistake.actual} read as {mistake.predicted}</figcaption></figure>"
        for mistake in mistakes
    )
    shown = f"{len(mistakes)} of {total}" if len(mistakes) < total else f"All {total}"
    return f'<p class="note">{shown}.</p>\n<div class="mistakes">{_lines(figures)}</div>'


def _picture(pixels: Sequence[Sequence[float]]) -> str:
    squares = "".join(
        f'<rect x="{x}" y="{y}" width="1" height="1" fill-opacity="{ink:.2g}"/>'
        for y, row in enumerate(pixels)
        for x, ink in enumerate(row)
        if ink
    )
    size = f"0 0 {len(pixels[0])} {len(pixels)}"
    return (
        f'<svg viewBox="{size}" width="72" height="72" shape-rendering="crispEdges">{squares}</svg>'
    )


def _shade(rgb: str, count: int, at_most: int) -> str:
    if not count:
        return "#f4f6f8"
    return f"rgba({rgb}, {0.15 + 0.5 * count / at_most:.2f})"


def _lines(parts: Iterable[str]) -> str:
    return "\n".join(parts)
