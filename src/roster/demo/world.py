"""Owns the made-up world: one seeded call writes its events, CRM and accounts; touches no server and no clock."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from roster.base.errors import Code, Error
from roster.base.time import Range
from roster.demo.crm import write_accounts, write_crm
from roster.demo.people import DAY_MS, make_accounts, make_people
from roster.demo.story import Story
from roster.demo.visits import Recorder

if TYPE_CHECKING:
    from pathlib import Path

DAYS_MAX = 700


@dataclass(frozen=True, slots=True)
class World:
    """What was written: files, counts (lines without headers), the covered time and somebody to show.

    The sample person has events, a company and a CRM row whose key matches exactly and whose tier, value
    and score are filled.
    """

    events_path: Path
    crm_path: Path
    accounts_path: Path
    window: Range
    events: int
    sessions: int
    users: int
    accounts: int
    crm_rows: int
    sample_user_id: str
    sample_email: str


def write_world(
    folder: Path,
    *,
    seed: int,
    now_ms: int,
    users: int = 30_000,
    accounts: int = 1_500,
    days: int = 120,
    events_per_user: int = 12,
) -> World:
    """Write `events.ndjson`, `crm.csv` and `accounts.csv` into `folder`; equal arguments give equal bytes.

    Events lie in the `days` before `now_ms`, sorted by date, about `users * events_per_user` of them (everybody
    comes at least once, so fewer than 9 per user are not reached). Every user has events.
    Errors: invalid, for counts below 1 or more than `DAYS_MAX` days.
    """
    for name, number in (
        ("users", users),
        ("accounts", accounts),
        ("days", days),
        ("events_per_user", events_per_user),
    ):
        if number < 1:
            raise Error(Code.INVALID, f"{name} must be at least 1, not {number}", at=name)
    if days > DAYS_MAX:
        raise Error(Code.INVALID, f"days must be at most {DAYS_MAX}, not {days}", at="days")
    folder.mkdir(parents=True, exist_ok=True)
    rng = Random(seed)
    window = Range(now_ms - days * DAY_MS, now_ms)
    companies = make_accounts(rng, accounts, window)
    people = make_people(rng, users, companies, window)
    events_path, crm_path, accounts_path = (folder / n for n in ("events.ndjson", "crm.csv", "accounts.csv"))
    with events_path.open("w", encoding="utf-8", newline="\n") as out:
        recorder = Recorder(rng, out, window)
        Story(recorder, people, companies, users * events_per_user).play()
    crm_rows = write_crm(crm_path, rng, people, now_ms)
    write_accounts(accounts_path, companies)
    return World(
        events_path=events_path,
        crm_path=crm_path,
        accounts_path=accounts_path,
        window=window,
        events=recorder.events,
        sessions=recorder.sessions,
        users=users,
        accounts=accounts,
        crm_rows=crm_rows,
        sample_user_id=people[0].id,
        sample_email=people[0].email,
    )
