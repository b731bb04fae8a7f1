"""Make docs/run.svg and docs/report.webp from real runs: python docs/picture.py

They run on the local Modal server. The report is drawn by the system's Chromium.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "run.svg"
COMMAND = ["submit", "configs/per_step_mixed.yaml"]
WIDTH = 100

REPORT = ROOT / "docs" / "report.webp"
REPORTED = ["submit", "configs/quickstart.yaml", "--mode", "per_step"]
REPORTED += ["--set", "settings.orchestrator.keep_warm=30", "--timeout", "1h"]
WINDOW = (1120, 1260)

# Without the fonts that Rich's template loads from the network, and without its comment.
TEMPLATE = re.sub(
    r"@font-face \{\{.*?\}\}\s*|<!--.*?-->\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL
)


def record(command: list[str], page: Path) -> str:
    """Run a command with a new home folder, write its report, and return its output with colours.

    Raises:
        subprocess.CalledProcessError: The run failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "HOME": folder,
            "ZENML_CONFIG_PATH": f"{folder}/zenml",
            "MODALRUN_LOCAL_STATE": f"{folder}/state",
            "ZENML_ANALYTICS_OPT_IN": "false",
            "FORCE_COLOR": "1",
            "COLUMNS": str(WIDTH),
        }
        modalrun = [sys.executable, "-m", "modalrun"]
        done = subprocess.run(
            [*modalrun, *command],
            cwd=ROOT,
            env=environment,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for more in (["report", "latest", "--output", str(page)], ["local", "stop"]):
            subprocess.run([*modalrun, *more], env=environment, check=True)
    # ZenML's own line about a new configuration.
    return done.stdout.removeprefix("Setting the global active stack to default.\n")


def draw(page: Path) -> None:
    """Draw the top of a report.

    Raises:
        subprocess.CalledProcessError: Chromium failed.
    """
    picture = page.with_suffix(".png")
    command = ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars"]
    command += [f"--window-size={WINDOW[0]},{WINDOW[1]}", f"--screenshot={picture}"]
    subprocess.run([*command, page.as_uri()], check=True, stderr=subprocess.DEVNULL)
    Image.open(picture).save(REPORT, lossless=True, method=6)


def main() -> None:
    """Write the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        output = record(COMMAND, page)
        record(REPORTED, page)
        draw(page)
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(f"$ modalrun {' '.join(COMMAND)}\n{output}"), soft_wrap=False)
    svg = console.export_svg(title="modalrun", code_format=TEMPLATE, unique_id="run")
    PICTURE.write_text(svg, encoding="utf-8")
    print(f"Wrote {PICTURE} and {REPORT}")


if __name__ == "__main__":
    main()
