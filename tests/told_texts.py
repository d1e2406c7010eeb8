"""Owns how several texts are told in one, in plain Python."""

from __future__ import annotations

import json
import re


def listed(texts: list[str]) -> str | None:
    """Different texts in order: nothing of none; a JSON array of several, and of one that looks like an array."""
    if not texts:
        return None
    return texts[0] if len(texts) == 1 and not texts[0].startswith("[") else _array(texts)


def texts_in(told: str | None) -> list[str | None]:
    """What `listed` put into one text."""
    return json.loads(told) if told is not None and told.startswith("[") else [told]


def _array(texts: list[str]) -> str:
    """As the engine spells it: control characters by upper-case digits."""
    spelled = json.dumps(texts, ensure_ascii=False, separators=(",", ":"))
    return re.sub(r"\\u00[0-9a-f]{2}|\\.", lambda m: m[0][:2] + m[0][2:].upper(), spelled)
