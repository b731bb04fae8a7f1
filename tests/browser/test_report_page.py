"""The report of a run in a real browser: the system's Chromium, through Playwright.

Fonts differ between machines, so no stored picture is compared. What must be the same everywhere
is: where things are painted (the pixels of each bar and node have its own colour), that no text
touches another, and that light and dark have the same layout.
"""

from __future__ import annotations

import io
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from modalrun.observe.report import Report
from modalrun.output.report import render
from tests.unit.reports import HOSTILE, large, mixed

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
SCHEMES = ("light", "dark")
PATIENCE = 150_000
"""Milliseconds: Playwright's own half a minute is short on a busy machine."""

DEFAULT = {(390, "light"), (1000, "dark")}
LOOKS = pytest.mark.parametrize(
    ("width", "scheme"),
    [
        pytest.param(*look, marks=[] if look in DEFAULT else pytest.mark.exhaustive)
        for look in itertools.product((390, 1000, 1600), SCHEMES)
    ],
)

if CHROMIUM is None:
    pytest.skip("there is no Chromium: apt-get install chromium", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="there is no Playwright")


@dataclass
class Opened:
    """A page, and what it has done."""

    page: Page
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)


Open = Callable[..., Opened]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    home = str(tmp_path_factory.mktemp("home"))
    with sync_api.sync_playwright() as playwright:
        # Root, as in a container, has no other sandbox.
        found = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox"],
            env={**os.environ, "HOME": home},
            timeout=PATIENCE,
        )
        yield found
        found.close()


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    numbers = itertools.count()
    contexts = []

    def opened(report: Report, width: int = 1000, scheme: Any = "light") -> Opened:
        path = tmp_path / f"{next(numbers)}.html"
        path.write_text(render(report), encoding="utf-8")
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        found = Opened(context.new_page())
        found.page.on("console", lambda message: found.messages.append(message.text))
        found.page.on("pageerror", lambda error: found.messages.append(str(error)))
        found.page.on("dialog", lambda dialog: found.dialogs.append(dialog.message))

        def ended(request: Any) -> None:
            # Chromium tells of what the page's policy holds back, too, now and then.
            if not request.url.startswith("data:") and request.failure != "csp":
                found.requests.append(request.url)

        context.on("requestfinished", ended)
        context.on("requestfailed", ended)
        found.page.goto(path.as_uri())
        found.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        return found

    yield opened
    for context in contexts:
        context.close()


_TEXTS = """() => {
  const found = []
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (walker.nextNode()) {
    const node = walker.currentNode, parent = node.parentElement
    if (!node.data.trim() || parent.closest('title') || !parent.checkVisibility()) continue
    const range = document.createRange()
    range.selectNodeContents(node)
    for (const rect of range.getClientRects()) {
      let [left, top, right, bottom] = [rect.left, rect.top, rect.right, rect.bottom]
      for (let above = parent; above; above = above.parentElement) {
        if (above === document.documentElement) break
        if (getComputedStyle(above).overflow === 'visible') continue
        const clip = above.getBoundingClientRect()
        left = Math.max(left, clip.left); right = Math.min(right, clip.right)
        top = Math.max(top, clip.top); bottom = Math.min(bottom, clip.bottom)
      }
      if (right - left > 1 && bottom - top > 1)
        found.push({text: node.data.trim().slice(0, 40), left, top, right, bottom})
    }
  }
  return found
}"""

_OVERLAPS = f"""() => {{
  const all = ({_TEXTS})().sort((a, b) => a.top - b.top), found = []
  all.forEach((a, n) => {{
    for (let m = n + 1; m < all.length && all[m].top < a.bottom - 4; m++) {{
      const b = all[m]
      if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1) found.push([a.text, b.text])
    }}
    if (a.left < -1 || a.right > innerWidth + 1) found.push([a.text, 'the edge'])
  }})
  return found
}}"""

_POOR_CONTRAST = """() => {
  const numbers = text => (text.match(/[\\d.]+/g) || []).map(Number)
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0)
  const found = []
  for (const one of document.querySelectorAll('body *')) {
    const own = [...one.childNodes].some(n => n.nodeType === 3 && n.data.trim())
    if (!own || one.closest('title') || !one.checkVisibility()) continue
    const style = getComputedStyle(one)
    const ink = numbers(one instanceof SVGElement ? style.fill : style.color)
    const paper = node => numbers(getComputedStyle(node).backgroundColor)
    let below = one
    while (paper(below)[3] === 0) below = below.parentElement
    const [a, b] = [light(ink), light(paper(below))]
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
    if (ratio < 4.5) found.push([one.textContent.trim().slice(0, 40), ratio.toFixed(2)])
  }
  return found
}"""


@LOOKS
def test_everything_can_be_read(show: Open, width: int, scheme: str) -> None:
    for report in (mixed(), large(12)):
        found = show(report, width, scheme)
        assert found.messages == []
        assert found.page.evaluate("document.documentElement.scrollWidth") <= width
        assert found.page.evaluate(_OVERLAPS) == []
        assert found.page.evaluate(_POOR_CONTRAST) == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("width", [390, 1000])
def test_long_names_fit(show: Open, width: int) -> None:
    page = show(mixed("unbroken" * 30), width).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_checks_see_what_they_look_for(show: Open) -> None:
    page = show(mixed()).page
    page.add_style_tag(
        content="nav { position: relative; top: -80px } .sub { color: #999 !important }"
    )
    assert page.evaluate(_OVERLAPS) != []
    assert "0d1f5b62-0000-4000-8000-000000000000" in [
        text for text, _ in page.evaluate(_POOR_CONTRAST)
    ]


def test_a_plain_page_is_silent_and_loads_nothing(show: Open) -> None:
    found = show(mixed())
    assert found.messages == []
    assert [url.rpartition("/")[2] for url in found.requests] == ["0.html"]


@LOOKS
def test_every_bar_and_node_is_painted_in_its_colour(show: Open, width: int, scheme: str) -> None:
    from PIL import Image

    page = show(mixed(), width, scheme).page
    places = page.evaluate("""() => [...document.querySelectorAll('.track rect, .graph circle')]
        .map(one => [one, one.getBoundingClientRect()])
        .filter(([one, box]) => {
            const clip = one.closest('.scroll').getBoundingClientRect()
            return box.width > 6 && box.right < clip.right && box.bottom < clip.bottom
        })
        .map(([one, box]) => [
            box.left + box.width / 2, scrollY + box.top + box.height / 2,
            getComputedStyle(one).fill.match(/\\d+/g).map(Number),
        ])""")
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    assert len(places) >= 10
    wrong = [
        (x, y, picture.getpixel((int(x), int(y))), colour)
        for x, y, colour in places
        if picture.getpixel((int(x), int(y))) != tuple(colour)
    ]
    assert wrong == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_box_shows_where_more_can_be_scrolled_to(show: Open, scheme: str) -> None:
    from PIL import Image

    box = show(large(12), 390, scheme).page.locator(".graph-box")

    def edge() -> set[Any]:
        picture = Image.open(io.BytesIO(box.screenshot())).convert("RGB")
        # Between the nodes of a column.
        return {picture.getpixel((picture.width - 1, 53 + 58 * n)) for n in range(1, 6)}

    shaded = edge()
    box.evaluate("one => { one.scrollLeft = one.scrollWidth }")
    (plain,) = edge()
    assert all(sum(one) < sum(plain) - 20 for one in shaded)


def test_what_scrolls_is_whole_in_print(show: Open) -> None:
    page = show(mixed(), 1000, "dark").page
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = false)")
    page.emulate_media(media="print")
    boxes = page.locator("pre, .scroll:not(.graph-box), .body, .failure")
    heights = boxes.evaluate_all("all => all.map(one => [one.scrollHeight, one.clientHeight])")
    assert len(heights) > 10
    assert all(0 < whole <= shown + 1 for whole, shown in heights)
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(26, 34, 48)"


def test_light_and_dark_have_the_same_layout(show: Open) -> None:
    light, dark = (show(mixed(), 1000, scheme).page for scheme in SCHEMES)
    assert light.evaluate(_TEXTS) == dark.evaluate(_TEXTS)
    background = "getComputedStyle(document.body).backgroundColor"
    assert light.evaluate(background) != dark.evaluate(background)


def test_nothing_of_a_run_acts_in_the_page(show: Open) -> None:
    found = show(mixed(HOSTILE))
    frame = found.page.frame_locator("iframe")
    # The user's page is shown, and can do nothing.
    found.page.locator("iframe").scroll_into_view_if_needed()
    assert frame.locator("#shown").inner_text() == "A page of the user's"
    frame.locator("button").click()
    found.page.wait_for_timeout(300)
    assert found.dialogs == []
    assert found.page.title().endswith(": failed") and found.page.title() != "hacked"
    assert [url for url in found.requests if not url.startswith("file:")] == []
    assert found.page.evaluate("document.scripts.length") == 0
    # Its picture can't be loaded, and is the only one beside that of the artifact.
    assert found.page.locator("img").count() == 1
    assert found.page.evaluate("document.images[0].naturalWidth") == 1


def test_the_page_can_be_used_with_the_keyboard(show: Open) -> None:
    page = show(large(12)).page
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = false)")
    seen = []
    for _ in range(200):
        page.keyboard.press("Tab")
        now = page.evaluate("""() => {
            const one = document.activeElement
            if (one === document.body) return null
            return [
                one.tagName,
                Math.round(scrollY + one.getBoundingClientRect().top),
                !!one.closest('svg') || getComputedStyle(one).outlineStyle !== 'none',
                !!one.closest('.graph, .tiles'),
            ]
        }""")
        if now is None:
            break
        seen.append(now)
    else:
        pytest.fail("the focus does not leave the page")
    assert all(visible for *_, visible, _ in seen)
    tops = [top for _, top, _, beside in seen if not beside]
    assert tops == sorted(tops)
    names = [name for name, *_ in seen]
    assert names.count("SUMMARY") == 14 and "DIV" in names
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.get_attribute("open") is not None


def test_the_page_can_be_used_with_a_screen_reader(show: Open) -> None:
    page = show(mixed()).page
    tree = page.locator("body").aria_snapshot()
    for line in (
        '- heading "a text" [level=1]',
        '- navigation "Sections"',
        "- main:",
        '- region "Timeline"',
        '- heading "What failed" [level=2]',
        '- article "Failure of step publish"',
        '- region "Traceback of publish"',
        'img "load, completed: sandbox start 1.0 s, import 2.0 s, run 12 s"',
        'link "announce, not run"',
        'img "CPU: peak 2.1 of 4 cores"',
        'columnheader "attempt"',
        '- img "Visualization of a text"',
    ):
        assert line in tree, line
    levels = page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3')].map(one => Number(one.tagName[1]))"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    unnamed = page.locator(
        "svg:not([aria-hidden]):not([aria-label]):not(a svg), iframe:not([title]), img:not([alt]),"
        " [tabindex]:not([aria-label]):not([aria-labelledby])"
    ).evaluate_all("all => all.map(one => one.outerHTML.slice(0, 80))")
    assert unnamed == []
    assert (
        page.evaluate("document.querySelectorAll('[tabindex]:not([tabindex=\"0\"])').length") == 0
    )
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(one => one.id)")
    assert len(ids) == len(set(ids))
