"""Owns what people of the made-up product do and when: visits, sign-ups, upgrades, invoices; renders no JSON."""

from __future__ import annotations

import heapq
from itertools import accumulate
from typing import TYPE_CHECKING

from roster.demo import names
from roster.demo.people import (
    DAY_MS,
    HOUR_MS,
    Account,
    Person,
    make_uuid,
    pick_client,
    pick_place,
    plan_returns,
    shape_moment,
)
from roster.demo.visits import Recorder, Session, anonymous_usr, person_usr, record_server_event

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

# Events of an average anonymous visit, sign-up and later session; they turn the wanted total into sessions.
_VISITS_PER_USER = 0.35
_VISIT_EVENTS, _SIGNUP_EVENTS, _RETURN_EVENTS = 2.9, 9.6, 5.2
_PAGES = tuple(page for page, _ in names.APP_PAGES)
_PAGE_ODDS = tuple(accumulate(weight for _, weight in names.APP_PAGES))
_PERIOD_MS = 30 * DAY_MS


class Story:
    """The agenda of a world: moments and what happens then, played in order of time."""

    def __init__(self, recorder: Recorder, people: list[Person], accounts: list[Account], events: int) -> None:
        self._recorder = recorder
        self._rng = recorder.rng
        self._agenda: list[tuple[int, int, Callable[[int], None]]] = []
        self._count = 0
        window = recorder.window
        for _ in range(int(len(people) * _VISITS_PER_USER)):
            at_ms = window.from_ms + int((window.to_ms - window.from_ms) * self._rng.random() ** 0.7)
            self._plan(shape_moment(self._rng, at_ms, -2), self._visit)
        new = sum(person.is_new for person in people)
        left = events - int(len(people) * _VISITS_PER_USER * _VISIT_EVENTS) - int(new * _SIGNUP_EVENTS)
        returns = plan_returns(self._rng, people, max(left, 0) / _RETURN_EVENTS, window)
        for person, starts in zip(people, returns, strict=True):
            self._plan_person(person, starts)
        for account in accounts:
            if account.status == "active" and account.plan != "free":
                opened_ms = max(window.from_ms, account.created_ms)
                self._plan(opened_ms + self._rng.randrange(_PERIOD_MS), self._bill(account))

    def play(self) -> None:
        """Everything on the agenda, in order; lines are handed on as soon as nothing older can follow."""
        played = 0
        while self._agenda:
            at_ms, _, happen = heapq.heappop(self._agenda)
            if played % 1024 == 0:
                self._recorder.write_before(at_ms)
            happen(at_ms)
            played += 1
        self._recorder.write_before(self._recorder.window.to_ms)

    def _plan(self, at_ms: int, happen: Callable[[int], None]) -> None:
        if self._recorder.window.from_ms <= at_ms < self._recorder.window.to_ms:
            self._count += 1
            heapq.heappush(self._agenda, (at_ms, self._count, happen))

    def _plan_person(self, person: Person, starts: list[int]) -> None:
        if person.is_new:
            if self._rng.random() < 0.25:
                before_ms = self._rng.randrange(6 * HOUR_MS, 9 * DAY_MS)
                self._plan(person.signup_ms - before_ms, lambda at_ms: self._visit(at_ms, person))
            self._plan(person.signup_ms, lambda at_ms: self._sign_up(at_ms, person))
        for start_ms in starts:
            self._plan(start_ms, lambda at_ms: self._come_back(at_ms, person))

    def _visit(self, at_ms: int, person: Person | None = None) -> None:
        """A visit of the public site without login, by a stranger or by somebody who will sign up later."""
        rng = self._rng
        session = Session(self._recorder, at_ms, person.client if person else pick_client(rng))
        anonymous_id = person.anonymous_id if person else make_uuid(rng)
        session.be(person.place if person else pick_place(rng), anonymous_usr(anonymous_id))
        experiment = _experiment(person.arm if person else rng.choice("AB"))
        session.show(names.LANDING, _some(rng, names.LANDING, 0.4), experiment)
        if rng.random() < 0.3:
            session.show(names.BLOG, _some(rng, names.BLOG, 0.2))
        if rng.random() < 0.45:
            session.show(names.PRICING, _some(rng, names.PRICING, 0.5), experiment)
            if rng.random() < 0.35 and person is None:
                session.show(names.SIGNUP)

    def _sign_up(self, at_ms: int, person: Person) -> None:
        """From the landing page to the first look at the dashboard; some stop at the onboarding."""
        rng = self._rng
        session = Session(self._recorder, at_ms, person.client)
        session.be(person.place, anonymous_usr(person.anonymous_id))
        experiment = _experiment(person.arm)
        session.show(names.LANDING, _some(rng, names.LANDING, 0.35), experiment)
        if rng.random() < 0.9:
            session.show(names.PRICING, _some(rng, names.PRICING, 0.4), experiment)
        session.show(names.SIGNUP, (names.CREATE_ACCOUNT,), experiment)
        account = person.accounts[0] if person.accounts else None
        session.be(person.place, person_usr(person, account.plan if account else person.plan), account)
        record_server_event(
            self._recorder, session.at_ms, "user_registered", user_id=person.id, account=account, session_id=session.id
        )
        if not person.finishes:
            if rng.random() < 0.7:
                session.show(names.ONBOARDING)
            return
        invited = (names.INVITE,) if rng.random() < 0.3 else ()
        session.show(names.ONBOARDING, (*invited, names.ONBOARDED))
        session.show(names.DASHBOARD, _some(rng, names.DASHBOARD, 0.4))
        self._wander(session, rng.randrange(2))

    def _come_back(self, at_ms: int, person: Person) -> None:
        """A later session of somebody known, now and then from elsewhere or on a new browser."""
        rng = self._rng
        window = self._recorder.window
        place = pick_place(rng) if rng.random() < 0.03 else person.place
        if rng.random() < 0.012:
            person.client, person.anonymous_id = pick_client(rng), make_uuid(rng)
        if rng.random() < 0.005:
            person.place = place = pick_place(rng)
        client = rng.choice(names.MOBILE_APPS) if rng.random() < 0.06 else person.client
        account = None
        if person.accounts:
            account = person.accounts[-1 if at_ms * 2 > window.from_ms + window.to_ms else 0]
        plan = account.plan if account else person.plan
        session = Session(self._recorder, at_ms, client)
        if client.browser and rng.random() < 0.08:
            session.be(place, anonymous_usr(person.anonymous_id))
            session.show(names.LOGIN, names.LOGIN.actions)
        session.be(place, person_usr(person, plan), account)
        session.show(names.DASHBOARD, _some(rng, names.DASHBOARD, 0.4))
        self._wander(session, min(int(rng.expovariate(1 / 2.2)), 18))
        if person.upgrades and plan == "free" and rng.random() < 0.6:
            person.upgrades = False
            self._upgrade(session, person, place, account)

    def _wander(self, session: Session, pages: int) -> None:
        for page in self._rng.choices(_PAGES, cum_weights=_PAGE_ODDS, k=pages):
            session.show(page, _some(self._rng, page, 0.5))

    def _upgrade(self, session: Session, person: Person, place: names.Place, account: Account | None) -> None:
        """Billing, checkout with a cart, the paid plan and the first invoice; billing repeats by the month."""
        rng = self._rng
        plan = rng.choice(("starter", "pro"))
        seats = max(1, account.members) if account else 1
        total = names.SEAT_PRICE[plan] * seats
        session.show(names.BILLING, (names.UPGRADE,))
        bought = names.Action("plan_upgraded", "custom", f'"to_plan":"{plan}"')
        session.show(names.CHECKOUT, (bought,), f'"cart":{{"value":{total}.0,"currency":"EUR","seats":{seats}}}')
        person.plan = plan
        if account:
            account.plan, account.status = plan, "active"
        for name, amount in (("subscription_started", 0), ("invoice_paid", total)):
            record_server_event(
                self._recorder,
                session.at_ms,
                name,
                user_id=person.id,
                account=account,
                session_id=session.id,
                invoice_eur=amount,
            )
            session.at_ms += 900
        session.be(place, person_usr(person, plan), account)
        session.show(names.DASHBOARD)
        if account:
            self._plan(session.at_ms + _PERIOD_MS, self._bill(account))

    def _bill(self, account: Account) -> Callable[[int], None]:
        def bill(at_ms: int) -> None:
            name = "invoice_paid" if self._rng.random() < 0.97 else "invoice_failed"
            record_server_event(self._recorder, at_ms, name, account=account, invoice_eur=account.monthly())
            self._plan(at_ms + _PERIOD_MS, bill)

        return bill


def _experiment(arm: str) -> str:
    return f'"experiment":{{"pricing_page":"{arm}"}}'


def _some(rng: Random, page: names.Page, odds: float) -> tuple[names.Action, ...]:
    """Up to two of a page's actions, each time with these odds."""
    chosen: list[names.Action] = []
    while len(chosen) < 2 and page.actions and rng.random() < odds:
        chosen.append(rng.choice(page.actions))
    return tuple(chosen)
