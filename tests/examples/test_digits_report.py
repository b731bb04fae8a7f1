"""The report, without a pipeline around it."""

import re

from examples.digits_report import Mistake, render

PIXELS = [[0.0, 1.0], [0.5, 0.0]]


def test_a_perfect_model_has_no_mistakes_to_show() -> None:
    html = render({"Oracle": 1.0}, "Oracle", [[3, 0], [0, 4]], [])
    assert "Oracle reads 100.0% of the digits" in html
    assert "None." in html
    assert "<svg" not in html


def test_a_model_that_is_never_right_has_a_matrix_too() -> None:
    html = render({"Liar": 0.0}, "Liar", [[0, 3], [4, 0]], [Mistake(PIXELS, 0, 1)])
    assert "Liar reads 0.0% of the digits" in html
    assert "1 of 7." in html
    assert "0 read as 1" in html


def test_models_are_listed_from_best_to_worst() -> None:
    html = render({"Bad": 0.2, "Good": 0.9, "Middling": 0.5}, "Good", [[9, 1], [0, 0]], [])
    assert re.findall(r"<td>([A-Z]\w+)</td>", html) == ["Good", "Middling", "Bad"]


def test_a_picture_has_a_square_for_every_inked_pixel() -> None:
    html = render({"M": 0.0}, "M", [[0, 1], [0, 0]], [Mistake(PIXELS, 0, 1)])
    assert re.findall(r'<rect x="(\d)" y="(\d)" .*?fill-opacity="(.*?)"', html) == [
        ("1", "0", "1"),
        ("0", "1", "0.5"),
    ]


def test_names_cannot_be_markup() -> None:
    html = render({"<b>": 1.0}, "<b>", [[1, 0], [0, 1]], [])
    assert "<b>" not in html
