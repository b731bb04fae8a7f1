"""Make docs/run.svg from a real run on the local Modal server: python docs/picture.py"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "run.svg"
COMMAND = ["submit", "configs/per_step_mixed.yaml"]
WIDTH = 100

# Without the fonts that Rich's template loads from the network, and without its comment.
TEMPLATE = re.sub(
    r"@font-face \{\{.*?\}\}\s*|<!--.*?-->\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL
)


def record() -> str:
    """Run the command with a new home folder and return its output with colours.

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
            [*modalrun, *COMMAND],
            cwd=ROOT,
            env=environment,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        subprocess.run([*modalrun, "local", "stop"], env=environment, check=True)
    # ZenML's own line about a new configuration.
    return done.stdout.removeprefix("Setting the global active stack to default.\n")


def main() -> None:
    """Write the picture."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(f"$ modalrun {' '.join(COMMAND)}\n{record()}"), soft_wrap=False)
    svg = console.export_svg(title="modalrun", code_format=TEMPLATE, unique_id="run")
    PICTURE.write_text(svg, encoding="utf-8")
    print(f"Wrote {PICTURE}")


if __name__ == "__main__":
    main()
