"""The made-up world: same bytes for same arguments, true event shapes, the promised mess, a sane funnel."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from roster.base.errors import Code, Error
from roster.demo.world import World, write_world

if TYPE_CHECKING:
    from pathlib import Path

NOW_MS = 1_767_225_600_000
DAY_MS = 86_400_000
FUNNEL = ("/", "/pricing", "/signup", "/onboarding", "/dashboard", "subscription_started")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_world(tmp_path_factory.mktemp("world"), seed=7, now_ms=NOW_MS, users=1_200, accounts=60, days=60)


@pytest.fixture(scope="module")
def events(world: World) -> list[dict[str, Any]]:
    return [json.loads(line) for line in world.events_path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def crm(world: World) -> list[dict[str, str]]:
    with world.crm_path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def texts(world: World) -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in (world.events_path, world.crm_path, world.accounts_path))


def write_small(folder: Path, seed: int) -> World:
    return write_world(folder, seed=seed, now_ms=NOW_MS, users=80, accounts=9, days=14)


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    first, again = write_small(tmp_path / "a", 1), write_small(tmp_path / "b", 1)
    assert texts(first) == texts(again)
    assert (first.events, first.crm_rows, first.sample_email) == (again.events, again.crm_rows, again.sample_email)
    other = texts(write_small(tmp_path / "c", 2))
    assert all(one != two for one, two in zip(texts(first), other, strict=True))


def test_every_event_has_the_keys_of_its_type(world: World, events: list[dict[str, Any]]) -> None:
    for event in events:
        assert isinstance(event["date"], int)
        assert event["application"]["id"] and event["application"]["name"] and event["service"]
        match event["type"]:
            case "server":
                assert event["event"]["name"] and ("usr" in event or "account" in event)
                continue
            case "view":
                assert event["view"]["loading_time"] > 1_000_000 and event["view"]["time_spent"] > 0
            case "action":
                assert event["action"]["id"] and event["action"]["type"] in {"click", "custom"}
                assert event["action"]["target"]["name"] in event["action"]["name"]
            case "error":
                assert event["error"]["id"] and event["error"]["message"]
            case other:
                pytest.fail(f"unknown type {other}")
        assert event["session"]["id"] and event["session"]["type"] == "user"
        assert event["view"]["id"] and event["view"]["name"] and event["view"]["url"]
        assert "id" in event["usr"] or set(event["usr"]) == {"anonymous_id"}
        assert set(event["geo"]) == {"country", "country_iso_code", "country_subdivision", "city"}
        assert event["device"]["type"] and event["os"]["name"] and event["version"]
        assert ("browser" in event) == (event["source"] == "browser")
    assert set(Counter(e["type"] for e in events)) == {"view", "action", "error", "server"}


def test_ids_are_used_once(events: list[dict[str, Any]]) -> None:
    for kind, holder in (("view", "view"), ("action", "action"), ("error", "error"), ("server", "event")):
        ids = [e[holder]["id"] for e in events if e["type"] == kind]
        assert len(ids) == len(set(ids))


def test_counts_stay_within_bounds(world: World, events: list[dict[str, Any]]) -> None:
    assert len(events) == world.events
    assert 0.8 * 12 * world.users <= world.events <= 1.2 * 12 * world.users
    assert {e["usr"]["id"] for e in events if "id" in e.get("usr", {})} == {
        f"u{100_001 + n}" for n in range(world.users)
    }
    sessions = {e["session"]["id"] for e in events if "session" in e}
    assert len(sessions) == world.sessions
    with world.accounts_path.open(encoding="utf-8", newline="") as file:
        accounts = {row["account_id"]: row for row in csv.DictReader(file)}
    assert len(accounts) == world.accounts
    assert {e["account"]["id"] for e in events if "account" in e} <= set(accounts)
    assert {"free", "starter", "pro", "enterprise"} == {row["plan_type"] for row in accounts.values()}
    assert all(
        (int(row["mrr"]) > 0) == (row["plan_type"] != "free")
        for row in accounts.values()
        if row["subscription_status"] == "active"
    )


def test_events_are_sorted_and_sessions_have_no_long_pause(world: World, events: list[dict[str, Any]]) -> None:
    dates = [e["date"] for e in events]
    assert dates == sorted(dates)
    assert world.window.from_ms <= dates[0] and dates[-1] < world.window.to_ms == NOW_MS
    sessions = defaultdict(list)
    for event in events:
        if "session" in event:
            sessions[event["session"]["id"]].append(event["date"])
    assert all(later - earlier < 15 * 60_000 for held in sessions.values() for earlier, later in pairwise(held))
    assert len(events) / len(sessions) > 3


def test_activity_grows_sleeps_at_weekends_and_is_uneven(world: World, events: list[dict[str, Any]]) -> None:
    middle_ms = world.window.from_ms + 30 * DAY_MS
    assert sum(e["date"] >= middle_ms for e in events) > 1.2 * world.events / 2
    weekdays = Counter((e["date"] // DAY_MS + 3) % 7 for e in events)
    assert (weekdays[5] + weekdays[6]) / 2 < 0.7 * sum(weekdays[n] for n in range(5)) / 5
    per_user = sorted(Counter(e["usr"]["id"] for e in events if "id" in e.get("usr", {})).values(), reverse=True)
    assert per_user[0] > 8 * per_user[len(per_user) // 2]


def test_people_move_hide_and_lack_addresses(events: list[dict[str, Any]]) -> None:
    countries, browsers, emails = defaultdict(set), defaultdict(set), defaultdict(set)
    companies = defaultdict(set)
    for event in events:
        user_id = event.get("usr", {}).get("id")
        if user_id and "geo" in event:
            countries[user_id].add(event["geo"]["country_iso_code"])
            browsers[user_id].add(event.get("browser", {}).get("name"))
            emails[user_id].add(event["usr"].get("email"))
            companies[user_id].add(event.get("account", {}).get("id"))
    assert 0 < sum(len(c) > 1 for c in countries.values()) < 0.2 * len(countries)
    assert 0 < sum(len(b) > 1 for b in browsers.values()) < 0.3 * len(browsers)
    assert 0 < sum(len(c) > 1 for c in companies.values()) < 0.1 * len(companies)
    assert 0.03 < sum(e == {None} for e in emails.values()) / len(emails) < 0.12
    assert any(e.islower() is False for held in emails.values() for e in held if e)
    sent = [e for held in emails.values() for e in held if e]
    assert len({e.lower() for e in sent}) == len(emails) - sum(e == {None} for e in emails.values())
    known_ids = {e["usr"]["anonymous_id"] for e in events if "id" in e.get("usr", {}) and "geo" in e}
    unknown = [e for e in events if "usr" in e and "id" not in e["usr"]]
    assert any(e["usr"]["anonymous_id"] in known_ids for e in unknown)
    assert any(e["usr"]["anonymous_id"] not in known_ids for e in unknown)


def test_context_carries_experiments_and_carts(events: list[dict[str, Any]]) -> None:
    contexts = [e["context"] for e in events if "context" in e]
    assert {c["experiment"]["pricing_page"] for c in contexts if "experiment" in c} == {"A", "B"}
    assert all(c["cart"]["value"] > 0 and c["cart"]["currency"] == "EUR" for c in contexts if "cart" in c)
    assert any("cart" in c for c in contexts)
    paid = [e for e in events if e["type"] == "server" and e["event"]["name"] == "invoice_paid"]
    assert paid and all(e["invoice"]["amount"] > 0 for e in paid)


def test_funnel_narrows_at_every_step(events: list[dict[str, Any]]) -> None:
    owners: dict[str, str] = {}
    for event in events:
        usr = event.get("usr", {})
        if "id" in usr and "anonymous_id" in usr:
            owners.setdefault(usr["anonymous_id"], usr["id"])
    reached: Counter[str] = Counter()
    for event in events:
        usr = event.get("usr", {})
        who = usr.get("id") or owners.get(usr.get("anonymous_id", ""), usr.get("anonymous_id"))
        name = event["event"]["name"] if event["type"] == "server" else event["view"]["name"]
        if who and reached[who] < len(FUNNEL) and name == FUNNEL[reached[who]]:
            reached[who] += 1
    counts = [sum(depth > step for depth in reached.values()) for step in range(len(FUNNEL))]
    assert all(later < earlier for earlier, later in pairwise(counts))
    assert 0.3 < counts[2] / counts[0] < 0.9 and 0.7 < counts[3] / counts[2] < 1
    assert 0 < counts[5] < 0.1 * counts[4]


def test_crm_is_as_messy_as_promised(world: World, events: list[dict[str, Any]], crm: list[dict[str, str]]) -> None:
    assert len(crm) == world.crm_rows
    raw = [row["email"] for row in crm]
    keys = Counter(email.strip().lower() for email in raw if email)
    used = {e["usr"]["email"].lower() for e in events if "email" in e.get("usr", {})}
    assert any(email != email.strip() for email in raw) and any(email != email.lower() for email in raw)
    assert "" in raw
    assert 0.2 < len(used - set(keys)) / len(used) < 0.4
    assert any(key.startswith("lead") for key in set(keys) - used)
    assert {"n/a", ""} < {row["ltv"] for row in crm} and {"-", ""} < {row["net_promoter_score"] for row in crm}
    assert any("," in row["name"] for row in crm) and any('"' in row["name"] for row in crm)
    assert any(not row["name"].isascii() for row in crm)
    repeated = {key for key, count in keys.items() if count > 1}
    assert 0.01 * len(crm) < len(repeated) < 0.05 * len(crm)
    last = {row["email"].strip().lower(): row for row in crm}
    first = {row["email"].strip().lower(): row for row in reversed(crm)}
    assert all(first[key] != last[key] for key in repeated)


def test_better_tiers_are_worth_more(crm: list[dict[str, str]]) -> None:
    worth: dict[str, list[float]] = {}
    for row in crm:
        if row["subscription_tier"] and row["ltv"] not in {"", "n/a"}:
            worth.setdefault(row["subscription_tier"], []).append(float(row["ltv"]))
    means = [sum(worth[tier]) / len(worth[tier]) for tier in ("free", "starter", "pro", "enterprise")]
    assert means == sorted(means) and means[3] > 3 * means[2]


@pytest.mark.parametrize(
    ("seed", "users", "days", "per_user"), [(1, 1, 1, 1), (2, 3, 1, 1), (3, 40, 7, 3), (4, 400, 90, 30)]
)
def test_sample_person_can_be_shown(tmp_path: Path, seed: int, users: int, days: int, per_user: int) -> None:
    world = write_world(
        tmp_path, seed=seed, now_ms=NOW_MS + 31_234_567, users=users, accounts=1, days=days, events_per_user=per_user
    )
    events = [json.loads(line) for line in world.events_path.read_text(encoding="utf-8").splitlines()]
    own = [e for e in events if e.get("usr", {}).get("id") == world.sample_user_id]
    assert any(e["type"] == "view" and e["account"]["id"] for e in own)
    assert {e["usr"]["email"] for e in own if e["type"] == "view"} == {world.sample_email}
    with world.crm_path.open(encoding="utf-8", newline="") as file:
        [row] = [r for r in csv.DictReader(file) if r["email"].strip().lower() == world.sample_email]
    assert row["email"] == world.sample_email and row["subscription_tier"]
    assert float(row["ltv"]) > 0 and 0 <= int(row["net_promoter_score"]) <= 10


@pytest.mark.parametrize(
    ("name", "number"), [("users", 0), ("accounts", 0), ("days", 0), ("events_per_user", 0), ("days", 701)]
)
def test_impossible_sizes_are_refused(tmp_path: Path, name: str, number: int) -> None:
    with pytest.raises(Error, match=name) as caught:
        write_world(tmp_path, seed=1, now_ms=NOW_MS, **{"users": 1, "accounts": 1, "days": 1, name: number})
    assert caught.value.code == Code.INVALID and caught.value.at == name
    assert not list(tmp_path.iterdir())
