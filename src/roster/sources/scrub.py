"""Owns taking credentials out of texts that people or logs see; knows no source."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping as Map
from urllib.parse import quote, quote_plus

MASK = "***"
NAMES = frozenset({"user", "username", "account_name", "region", "endpoint", "tenant_id"})
"""Members of a secret that name something and are needed to understand an error; they give no access."""
_WORD_MAX = 3


def scrub(text: str, secret: Map[str, str]) -> str:
    """The text with every credential masked, as it is and as it stands in addresses, JSON and Python."""
    forms = {form for name, value in secret.items() if name not in NAMES for form in _forms(value) if form}
    for form in sorted(forms, key=len, reverse=True):
        if len(form) > _WORD_MAX:
            text = text.replace(form, MASK)
        else:  # a short one is part of many words, which tell nothing of it
            text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", MASK, text)
    return text


def _forms(value: str) -> Iterator[str]:
    for part in {value, value.strip(), *_parts(value)}:
        yield from (part, quote(part, safe=""), quote(part), quote_plus(part), json.dumps(part)[1:-1], repr(part)[1:-1])


def _parts(value: str) -> Iterator[str]:
    """The lines of a key, the texts within a JSON key: a library may show one of them only."""
    yield from (line for line in value.splitlines() if len(line) > 16)
    if value.lstrip().startswith("{"):
        try:
            members = json.loads(value)
        except ValueError:
            return
        for name, text in members.items():
            if isinstance(text, str) and any(word in name for word in ("private", "secret", "token")):
                yield text
                yield from (line for line in text.splitlines() if len(line) > 16)
