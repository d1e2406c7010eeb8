"""Owns the made-up population: companies, people and when they come back; writes nothing."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from roster.demo import names

if TYPE_CHECKING:
    from random import Random

    from roster.base.time import Range

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
# Odds of keeping a moment by weekday (Monday first) and of a local hour.
_WEEKDAYS = (0.95, 1.0, 1.0, 0.97, 0.85, 0.3, 0.25)
_HOURS = tuple(accumulate((1, 1, 1, 1, 1, 2, 4, 10, 22, 34, 38, 36, 26, 30, 36, 34, 30, 22, 14, 11, 10, 8, 5, 2)))
_PLACES = tuple(accumulate(p.weight for p in names.PLACES))
_CLIENTS = tuple(accumulate(c.weight for c in names.CLIENTS))
_FOLD = str.maketrans({"ø": "o", "ł": "l", "ß": "ss", "'": "", "Ø": "o", "Ł": "l"})


@dataclass(slots=True, eq=False)
class Account:
    """A company. Its plan moves when one of its people upgrades, so this is state, not a value."""

    id: str
    name: str
    domain: str
    industry: str
    plan: str
    status: str
    employees: int
    created_ms: int
    members: int = 0

    def monthly(self) -> int:
        """Monthly recurring revenue in whole euros."""
        return names.SEAT_PRICE[self.plan] * max(1, self.members) if self.status != "canceled" else 0


@dataclass(slots=True, eq=False)
class Person:
    """A user. `email_sent` is what the product's events carry ("" = none); place and client wander over time."""

    id: str
    name: str
    email: str
    email_sent: str
    accounts: tuple[Account, ...]
    plan: str
    is_new: bool
    signup_ms: int
    place: names.Place
    client: names.Client
    anonymous_id: str
    arm: str
    finishes: bool
    upgrades: bool

    def current_plan(self) -> str:
        """The company's plan, or the person's own without a company."""
        return self.accounts[-1].plan if self.accounts else self.plan


def make_uuid(rng: Random) -> str:
    """A version 4 UUID from the seeded source."""
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def pick_place(rng: Random) -> names.Place:
    """A place by its weight."""
    return rng.choices(names.PLACES, cum_weights=_PLACES)[0]


def pick_client(rng: Random) -> names.Client:
    """A browser by its weight."""
    return rng.choices(names.CLIENTS, cum_weights=_CLIENTS)[0]


def shape_moment(rng: Random, at_ms: int, offset_h: int) -> int:
    """A moment near `at_ms`, moved towards working days and local working hours (epoch ms)."""
    day = at_ms // DAY_MS
    if rng.random() > _WEEKDAYS[(day + 3) % 7]:
        day -= rng.randrange(1, 7)
    hour = rng.choices(range(24), cum_weights=_HOURS)[0] - offset_h
    return day * DAY_MS + hour * HOUR_MS + rng.randrange(HOUR_MS)


def make_accounts(rng: Random, count: int, window: Range) -> list[Account]:
    """Companies, most of them small and on a cheap plan; created in the two years before the window's end."""
    pairs = [(head, tail) for head in names.COMPANY_HEADS for tail in names.COMPANY_TAILS]
    rng.shuffle(pairs)
    accounts = []
    for n in range(count):
        head, tail = pairs[n % len(pairs)]
        series = str(n // len(pairs) + 1) if n >= len(pairs) else ""
        plan = rng.choices(names.PLANS, weights=(38, 28, 24, 10))[0]
        if plan == "free":
            status = rng.choice(("trialing", "active", "active"))
        else:
            status = rng.choices(("active", "past_due", "canceled"), weights=(90, 4, 6))[0]
        accounts.append(
            Account(
                id=f"acc_{n + 1:05d}",
                name=f"{head} {tail}{series}{rng.choice(names.COMPANY_FORMS)}",
                domain=f"{head}{tail}{series}.example".lower(),
                industry=rng.choice(names.INDUSTRIES),
                plan=plan,
                status=status,
                employees=int(rng.lognormvariate(3.2 + names.PLANS.index(plan) * 0.9, 0.9)) + 2,
                created_ms=window.to_ms - rng.randrange(HOUR_MS, 730 * DAY_MS),
            )
        )
    return accounts


def make_people(rng: Random, count: int, accounts: list[Account], window: Range) -> list[Person]:
    """Users; the first is always a settled one with an e-mail and a company, for showing."""
    sizes = list(accumulate((n + 5) ** -0.8 for n in range(len(accounts))))
    taken: dict[str, int] = {}
    people = []
    for n in range(count):
        shown = n == 0
        homes = 1 if shown or rng.random() < 0.82 else 0
        if homes and not shown and rng.random() < 0.03 and len(accounts) > 1:
            homes = 2
        chosen = tuple(dict.fromkeys(rng.choices(accounts, cum_weights=sizes, k=homes)))
        is_new = not shown and rng.random() < 0.5
        people.append(_make_person(rng, n, chosen, is_new, taken, window))
    return people


def _make_person(
    rng: Random, n: int, chosen: tuple[Account, ...], is_new: bool, taken: dict[str, int], window: Range
) -> Person:
    first, last = rng.choice(names.FIRST_NAMES), rng.choice(names.LAST_NAMES)
    email = _address(first, last, chosen[0].domain if chosen else rng.choice(names.MAIL_HOSTS), taken)
    place = pick_place(rng)
    signup_ms = _signup_moment(rng, is_new, place, window)
    person = Person(
        id=f"u{100_001 + n}",
        name=f"{first} {last}",
        email=email,
        email_sent=email if n == 0 else _sent_address(rng, email),
        accounts=chosen,
        plan="free",
        is_new=is_new,
        signup_ms=signup_ms,
        place=place,
        client=pick_client(rng),
        anonymous_id=make_uuid(rng),
        arm=rng.choice("AB"),
        finishes=rng.random() < 0.84,
        upgrades=False,
    )
    person.upgrades = person.current_plan() == "free" and rng.random() < (0.17 if person.arm == "B" else 0.12)
    for account in chosen:
        account.members += 1
        account.created_ms = min(account.created_ms, signup_ms - rng.randrange(1, 5 * DAY_MS))
    return person


def _signup_moment(rng: Random, is_new: bool, place: names.Place, window: Range) -> int:
    """Before the window for the settled; inside it, denser towards its end, for the new."""
    if not is_new:
        return window.from_ms - rng.randrange(DAY_MS, 60 * DAY_MS)
    latest_ms = window.to_ms - HOUR_MS
    raw_ms = window.from_ms + int((latest_ms - window.from_ms) * rng.random() ** 0.65)
    shaped_ms = shape_moment(rng, raw_ms, place.offset_h)
    return shaped_ms if window.from_ms <= shaped_ms < latest_ms else raw_ms


def _address(first: str, last: str, domain: str, taken: dict[str, int]) -> str:
    plain = unicodedata.normalize("NFKD", f"{first}.{last}".lower().translate(_FOLD))
    local = "".join(c for c in plain if not unicodedata.combining(c))
    key = f"{local}@{domain}"
    taken[key] = taken.get(key, 0) + 1
    return key if taken[key] == 1 else f"{local}{taken[key]}@{domain}"


def _sent_address(rng: Random, email: str) -> str:
    """What the product knows: mostly the address, sometimes as typed, sometimes nothing."""
    luck = rng.random()
    if luck < 0.07:
        return ""
    return email.title() if luck < 0.10 else email


def plan_returns(rng: Random, people: list[Person], sessions: float, window: Range) -> list[list[int]]:
    """Start times (epoch ms, rising, an hour apart) of each person's later sessions; activity is Zipf-like."""
    ranks = list(range(len(people)))
    rng.shuffle(ranks)
    # The shown person is busy, but no outlier.
    at = ranks.index(len(people) // 100)
    ranks[0], ranks[at] = ranks[at], ranks[0]
    weights = [0.0 if _is_lost(p) else (rank + 20) ** -0.9 for p, rank in zip(people, ranks, strict=True)]
    sure = sum(not person.is_new for person in people)
    share = max(0.0, sessions - sure) / sum(weights)
    plans = []
    for person, weight in zip(people, weights, strict=True):
        wanted = (not person.is_new) + int(weight * share + rng.random())
        plans.append([] if _is_lost(person) else _starts(rng, person, wanted, window))
    return plans


def _is_lost(person: Person) -> bool:
    return person.is_new and not person.finishes


def _starts(rng: Random, person: Person, wanted: int, window: Range) -> list[int]:
    open_ms = person.signup_ms + 2 * HOUR_MS if person.is_new else window.from_ms
    span_ms = window.to_ms - open_ms
    # New people come back less and less; settled ones keep their pace.
    bend = 1.7 if person.is_new else 0.95
    moments = []
    for _ in range(wanted):
        at_ms = shape_moment(rng, open_ms + int(span_ms * rng.random() ** bend), person.place.offset_h)
        while at_ms < open_ms:
            at_ms += 7 * DAY_MS
        if at_ms < window.to_ms - HOUR_MS:
            moments.append(at_ms)
    if not moments and not person.is_new:
        moments.append(window.from_ms + rng.randrange(span_ms - HOUR_MS))
    starts: list[int] = []
    for at_ms in sorted(moments):
        if not starts or at_ms - starts[-1] >= HOUR_MS:
            starts.append(at_ms)
    return starts
