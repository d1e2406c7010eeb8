"""Draws captured terminal output as docs/demo.svg; shows what it is given, up to the step that prints keys.

`COLUMNS=104 roster demo > shown.txt` (end it with Ctrl-C), then `python docs/draw_demo.py shown.txt`.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

TARGET = Path(__file__).parent / "demo.svg"
STOP = "5. now you"
COLUMNS = 104
CHARACTER_PX, LINE_PX, MARGIN_PX, TOP_PX = 7.8, 17, 16, 44
TITLE = "roster demo"
ALT = (
    "Terminal output of the demo: one user before and after an update that adds nps_score and deletes "
    "old_revenue_field, then a facet and a query over CRM columns."
)


def draw(text: str) -> str:
    """The lines before STOP as an SVG image."""
    lines = [line.rstrip() for line in text.split(STOP, maxsplit=1)[0].splitlines() if line.strip()]
    width, height = COLUMNS * CHARACTER_PX + 2 * MARGIN_PX, TOP_PX + len(lines) * LINE_PX + MARGIN_PX
    drawn = [_line(line, TOP_PX + (number + 0.7) * LINE_PX) for number, line in enumerate(lines)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img"'
            ' font-family="ui-monospace, Menlo, Consolas, \'DejaVu Sans Mono\', monospace" font-size="13">',
            f"<title>{TITLE}</title><desc>{escape(ALT)}</desc>",
            '<rect width="100%" height="100%" rx="8" fill="#16181d"/>',
            f'<text x="{MARGIN_PX}" y="26" fill="#8b93a1">$ {TITLE}</text>',
            *drawn,
            "</svg>\n",
        ]
    )


def _line(line: str, y_px: float) -> str:
    is_step = line[0].isdigit() and line[1:3] == ". "
    fill = "#7cc7ff" if is_step else "#d7dae0"
    width = len(line) * CHARACTER_PX
    return (
        f'<text x="{MARGIN_PX}" y="{y_px:.1f}" textLength="{width:.1f}" lengthAdjust="spacingAndGlyphs" '
        f'xml:space="preserve" fill="{fill}">{escape(line)}</text>'
    )


if __name__ == "__main__":
    TARGET.write_text(draw(Path(sys.argv[1]).read_text(encoding="utf-8")), encoding="utf-8")
