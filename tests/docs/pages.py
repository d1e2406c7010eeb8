"""Reads the documentation: its pages, the fenced blocks in them, and what follows from their marks."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
GUIDES = sorted((ROOT / "docs" / "guide").glob("*.md"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CONTINUES = re.compile(r"<!-- continues: (\S+) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line it starts at, and whether only blanks stand before it."""

    language: str
    text: str
    line: int
    follows: bool


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks_of(path: Path) -> list[Block]:
    """All fenced blocks of a page; `follows` means that it belongs to the block before, as its output."""
    page = path.read_text(encoding="utf-8")
    found = []
    end = 0
    for fence in _FENCE.finditer(page):
        before = page[end : fence.start()]
        follows = bool(found) and not before.strip()
        found.append(Block(fence[1].strip(), fence[2], page.count("\n", 0, fence.start()) + 1, follows))
        end = fence.end()
    return found


@dataclass(frozen=True)
class Step:
    """Commands of a page for the shell, and what they print, when the page shows it."""

    commands: str
    shown: Block | None
    place: str


def steps_of(path: Path) -> list[Step]:
    """The runnable steps of a page, after those of the page it continues."""
    continues = _CONTINUES.search(path.read_text(encoding="utf-8"))
    steps = steps_of(path.parent / continues[1]) if continues else []
    blocks = blocks_of(path)
    for number, block in enumerate(blocks):
        if block.language != "sh":
            continue
        after = blocks[number + 1] if number + 1 < len(blocks) else None
        shown = after if after and after.follows and after.language in ("text", "json") else None
        steps.append(Step(block.text, shown, f"{name_of(path)}:{block.line}"))
    return steps


def same_text(shown: str, printed: str) -> bool:
    """Whether a text is as shown; `...` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in shown.strip().split("..."))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


def same_json(shown: Any, printed: Any) -> bool:
    """Whether a value is as shown; the text `...` stands for any value."""
    match shown:
        case "...":
            return True
        case dict() if isinstance(printed, dict):
            return shown.keys() == printed.keys() and all(same_json(v, printed[k]) for k, v in shown.items())
        case list() if isinstance(printed, list):
            return len(shown) == len(printed) and all(map(same_json, shown, printed))
        case _:
            return json.dumps(shown) == json.dumps(printed)


def agrees(shown: Block, printed: str) -> bool:
    """Whether what was printed is what the page shows."""
    if shown.language == "json":
        return same_json(json.loads(shown.text), json.loads(printed))
    return same_text(shown.text, printed)
