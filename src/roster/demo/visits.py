"""Owns one session under way and its event lines (JSON text); decides no schedule and opens no file."""

from __future__ import annotations

import json
from bisect import bisect_left
from typing import TYPE_CHECKING, TextIO

from roster.demo import names
from roster.demo.people import DAY_MS, Account, Person, make_uuid

if TYPE_CHECKING:
    from random import Random

    from roster.base.time import Range

APPLICATIONS = {
    "web": "5c1b2f0e-6d3a-4b86-9a41-0f7f3b9d2c11",
    "mobile": "9e77a4d2-18c5-4f0a-8b3e-6a52c0d4e7f3",
}
# No pause inside a session reaches the 15 minutes that would end it.
_PAUSE_MAX_MS = 10 * 60_000


def quote(text: str) -> str:
    """A JSON string literal."""
    return json.dumps(text, ensure_ascii=False)


class Recorder:
    """Collects event lines and writes them in the order of their dates; drops what lies past the window."""

    __slots__ = ("_out", "_pending", "events", "rng", "sessions", "window")

    def __init__(self, rng: Random, out: TextIO, window: Range) -> None:
        self.rng = rng
        self.window = window
        self.events = 0
        self.sessions = 0
        self._out = out
        self._pending: list[tuple[int, int, str]] = []

    def add(self, at_ms: int, line: str) -> None:
        if at_ms < self.window.to_ms:
            self.events += 1
            self._pending.append((at_ms, self.events, line))

    def write_before(self, at_ms: int) -> None:
        """Write all lines dated before `at_ms`; nothing older may be added afterwards."""
        self._pending.sort()
        ready = bisect_left(self._pending, (at_ms, 0, ""))
        self._out.writelines(line for _, _, line in self._pending[:ready])
        del self._pending[:ready]


class Session:
    """A cursor over one session: each call adds events and moves its time on."""

    __slots__ = ("_base", "_head", "_rng", "_tail", "at_ms", "client", "id", "recorder")

    def __init__(self, recorder: Recorder, at_ms: int, client: names.Client) -> None:
        rng = recorder.rng
        app = "web" if client.browser else "mobile"
        self.recorder = recorder
        self.at_ms = at_ms
        self.client = client
        self.id = make_uuid(rng)
        self._rng = rng
        self._base = names.SITE if client.browser else f"{names.PRODUCT.lower()}://app"
        label = names.PRODUCT if client.browser else f"{names.PRODUCT} Mobile"
        self._head = f'"application":{{"id":"{APPLICATIONS[app]}","name":"{label}"}},"session":{_session(self.id)}'
        self._tail = ""
        recorder.sessions += 1

    def be(self, place: names.Place, usr: str, account: Account | None = None) -> None:
        """From here on, events carry this place, `usr` object (JSON text) and account."""
        company = ""
        if account:
            company = f',"account":{{"id":"{account.id}","name":{quote(account.name)}}}'
        self._tail = (
            f',"usr":{usr}{company},{_surroundings(place, self.client, self.at_ms - self.recorder.window.from_ms)}'
        )

    def show(self, page: names.Page, actions: tuple[names.Action, ...] = (), context: str = "") -> None:
        """One view with its actions in order, now and then an error; `context` is the inside of an object."""
        rng, add = self._rng, self.recorder.add
        path = page.path.replace("{}", str(rng.randrange(1, 4000)))
        if page is names.LANDING and rng.random() < 0.3:
            path += f"?utm_source={rng.choice(names.CAMPAIGNS)}"
        view_id = make_uuid(rng)
        view = f'"view":{{"id":"{view_id}","name":"{page.name}","url":"{self._base}{path}"'
        pauses = [min(800 + int(rng.expovariate(1 / 24_000)), _PAUSE_MAX_MS) for _ in range(len(actions) + 1)]
        failing = rng.random() < 0.025
        load_ns = int(page.load_ms * 1_000_000 * rng.lognormvariate(0, 0.45))
        extra = f',"context":{{{context}}}' if context else ""
        add(
            self.at_ms,
            f'{{"type":"view","date":{self.at_ms},{self._head},{view},"loading_time":{load_ns},'
            f'"time_spent":{sum(pauses) * 1_000_000},"action":{{"count":{len(actions)}}},'
            f'"error":{{"count":{int(failing)}}}}}{self._tail}{extra},"_dd":{{"format_version":2,"document_version":1}}}}\n',
        )
        for action, pause_ms in zip(actions, pauses, strict=False):
            self.at_ms += pause_ms
            label = f"Click on {action.target}" if action.kind == "click" else action.target
            inside = ",".join(part for part in (context, action.context) if part)
            noted = f',"context":{{{inside}}}' if inside else ""
            add(
                self.at_ms,
                f'{{"type":"action","date":{self.at_ms},{self._head},{view}}},"action":{{"id":"{make_uuid(rng)}",'
                f'"type":"{action.kind}","name":"{label}","target":{{"name":"{action.target}"}}}}{self._tail}{noted}}}\n',
            )
        if failing:
            self._fail(view, extra)
        self.at_ms += pauses[-1]

    def _fail(self, view: str, extra: str) -> None:
        kind, message, source = self._rng.choice(names.ERRORS)
        at_ms = self.at_ms + 400
        self.recorder.add(
            at_ms,
            f'{{"type":"error","date":{at_ms},{self._head},{view}}},"error":{{"id":"{make_uuid(self._rng)}",'
            f'"message":{quote(message)},"type":"{kind}","source":"{source}"}}{self._tail}{extra}}}\n',
        )


def _session(session_id: str) -> str:
    return f'{{"id":"{session_id}","type":"user"}}'


def _surroundings(place: names.Place, client: names.Client, age_ms: int) -> str:
    """The attributes that the server side adds or the client sends about itself; browsers age by the month."""
    browser = ""
    if client.browser:
        step = 0 if client.browser.endswith("Safari") else age_ms // (28 * DAY_MS)
        browser = f'"browser":{{"name":"{client.browser}","version":"{client.version + step}.0"}},'
    service = "quillhaven-web" if client.browser else "quillhaven-mobile"
    return (
        f'"geo":{{"country":"{place.country}","country_iso_code":"{place.code}",'
        f'"country_subdivision":"{place.region}","city":"{place.city}"}},'
        f'"device":{{"type":"{client.device}"}},"os":{{"name":"{client.os}","version":"{client.os_version}"}},'
        f'{browser}"source":"{client.source}","service":"{service}","version":"2.{age_ms // (7 * DAY_MS)}.0"'
    )


def person_usr(person: Person, plan: str) -> str:
    """The `usr` object of a known person."""
    email = f'"email":"{person.email_sent}",' if person.email_sent else ""
    return (
        f'{{"id":"{person.id}","name":{quote(person.name)},{email}"plan":"{plan}",'
        f'"anonymous_id":"{person.anonymous_id}"}}'
    )


def anonymous_usr(anonymous_id: str) -> str:
    """The `usr` object of a browser nobody has logged in on."""
    return f'{{"anonymous_id":"{anonymous_id}"}}'


def record_server_event(
    recorder: Recorder,
    at_ms: int,
    name: str,
    *,
    user_id: str = "",
    account: Account | None = None,
    session_id: str = "",
    invoice_eur: int = 0,
) -> None:
    """A back-end event (`type` server): a name, whom it is about, and the amount for invoices."""
    parts = [
        f'{{"type":"server","date":{at_ms},"application":{{"id":"{APPLICATIONS["web"]}","name":"{names.PRODUCT}"}}',
        f'"event":{{"id":"{make_uuid(recorder.rng)}","name":"{name}"}}',
    ]
    if session_id:
        parts.append(f'"session":{_session(session_id)}')
    if user_id:
        parts.append(f'"usr":{{"id":"{user_id}"}}')
    if account:
        parts.append(f'"account":{{"id":"{account.id}","name":{quote(account.name)}}}')
    if invoice_eur:
        parts.append(f'"invoice":{{"amount":{invoice_eur},"currency":"EUR"}}')
    parts.append('"service":"quillhaven-billing"}\n')
    recorder.add(at_ms, ",".join(parts))
