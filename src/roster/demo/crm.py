"""Owns the CRM and account exports of the made-up product, with the mess such files have; knows no events."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from roster.base.time import instant, iso_ms
from roster.demo import names
from roster.demo.people import DAY_MS, Account, Person

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

COLUMNS = (
    "email",
    "name",
    "company",
    "subscription_tier",
    "ltv",
    "net_promoter_score",
    "legacy_revenue",
    "renewal_date",
    "owner",
    "is_reference",
    "employees",
)
_LTV_EUR = {"free": 40, "starter": 600, "pro": 2_400, "enterprise": 14_000}


def write_crm(path: Path, rng: Random, people: list[Person], now_ms: int) -> int:
    """Write the CRM export; the first person gets a clean row. Returns the number of rows."""
    rows = []
    repeats = []
    for person in people:
        shown = person is people[0]
        if not shown and rng.random() < 0.3:
            continue
        cells = _cells(rng, person.email, person.name, person.accounts, person.current_plan(), now_ms)
        rows.append(cells if shown else _mess_up(rng, cells))
        if not shown and rng.random() < 0.03:
            later = _cells(rng, person.email, person.name, person.accounts, person.current_plan(), now_ms)
            repeats.append({**later, "email": _other_case(rng, person.email)})
    for n in range(max(1, len(people) // 14)):
        first, last = rng.choice(names.FIRST_NAMES), rng.choice(names.LAST_NAMES)
        plan = rng.choice(names.PLANS)
        rows.append(
            _mess_up(
                rng, _cells(rng, f"lead{n + 1}@{rng.choice(names.MAIL_HOSTS)}", f"{first} {last}", (), plan, now_ms)
            )
        )
    rng.shuffle(rows)
    rows.extend(repeats)
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)


def _cells(rng: Random, email: str, name: str, accounts: tuple[Account, ...], plan: str, now_ms: int) -> dict[str, str]:
    """A clean row: the better the plan, the more the customer is worth."""
    ltv = _LTV_EUR[plan] * rng.lognormvariate(0, 0.5)
    score = max(0, min(10, round(rng.gauss(6.6 + names.PLANS.index(plan) * 0.5, 2.1))))
    renewal = instant(now_ms + rng.randrange(-60, 365) * DAY_MS).date().isoformat()
    return {
        "email": email,
        "name": name,
        "company": accounts[-1].name if accounts else "",
        "subscription_tier": plan,
        "ltv": f"{ltv:.2f}",
        "net_promoter_score": str(score),
        "legacy_revenue": f"{ltv * rng.uniform(0, 0.6):.2f}",
        "renewal_date": "" if plan == "free" else renewal,
        "owner": rng.choice(names.OWNERS),
        "is_reference": "true" if score >= 9 and rng.random() < 0.4 else "false",
        "employees": str(accounts[-1].employees) if accounts else str(rng.randrange(1, 30)),
    }


def _mess_up(rng: Random, cells: dict[str, str]) -> dict[str, str]:
    """What hands and exports do to a row: case and blanks in the key, gaps, cells that are no number."""
    messy = dict(cells)
    luck = rng.random()
    if luck < 0.14:
        messy["email"] = _other_case(rng, cells["email"])
    elif luck < 0.20:
        messy["email"] = rng.choice((" {}", "{} ", "  {} ", "\t{}")).format(cells["email"])
    elif luck < 0.21:
        messy["email"] = ""
    for column, bad, odds in (("ltv", "n/a", 0.02), ("net_promoter_score", "-", 0.03), ("renewal_date", "TBD", 0.01)):
        if rng.random() < odds:
            messy[column] = bad
    for column, odds in (
        ("subscription_tier", 0.05),
        ("ltv", 0.08),
        ("net_promoter_score", 0.25),
        ("legacy_revenue", 0.35),
        ("owner", 0.1),
        ("is_reference", 0.12),
        ("employees", 0.15),
    ):
        if rng.random() < odds:
            messy[column] = ""
    if rng.random() < 0.04:
        first, _, last = cells["name"].partition(" ")
        messy["name"] = rng.choice((f"{last}, {first}", f'{first} "{first[:3]}" {last}'))
    return messy


def _other_case(rng: Random, email: str) -> str:
    return email.upper() if rng.random() < 0.4 else email.title()


def write_accounts(path: Path, accounts: list[Account]) -> None:
    """Write the billing export, one row per account, clean."""
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("account_id", "plan_type", "subscription_status", "mrr", "industry", "created_at"))
        for account in accounts:
            created_at = iso_ms(instant(account.created_ms))
            writer.writerow((account.id, account.plan, account.status, account.monthly(), account.industry, created_at))
