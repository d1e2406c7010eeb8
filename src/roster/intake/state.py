"""Owns what the intake remembers between requests: counts, samples, rejected events, the places of addresses."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from roster.base.errors import Error
from roster.intake.arrival import Arrival
from roster.intake.decode import Batch, Rejected, origin_of, replayed, rum_events
from roster.intake.event import server_events
from roster.intake.geo import Geo
from roster.intake.reasons import DROPPED, Reason
from roster.intake.rejected import Kept, RejectedStore, clip
from roster.intake.samples import Samples
from roster.intake.steps import Draft, Origin
from roster.intake.tally import Tally
from roster.intake.traces import Drop, Person, drop_from_folder
from roster.ports import Clock

RUM = "rum"
SERVER = "prodlytics"
REPLAY = "replay"
_DAY_MS = 86_400_000
_REPLAYED_AT_ONCE = 1000
_KEPT_MAX = 1000
"""Rejected events of one request that are kept: a body of a million broken lines is told from its first ones."""


@dataclass(frozen=True, slots=True)
class Intake:
    """One per process. `new_id` makes identities for events of servers that bring none."""

    tally: Tally
    geo: Geo
    samples: Samples
    rejected: RejectedStore
    events_days: float
    keep_ip: bool
    new_id: Callable[[], str]

    @property
    def _keep_ms(self) -> int:
        return int(self.events_days * _DAY_MS)

    def _origin(self, arrival: Arrival, place: dict[str, str]) -> Origin:
        """What the steps are told of a request that came from a place."""
        return origin_of(arrival, keep_ms=self._keep_ms, place=place, keep_ip=self.keep_ip)

    def take_rum(self, arrival: Arrival, append: Callable[[list[bytes]], None]) -> Batch:
        """The SDK events of a request, appended; a bad one fails no other. Errors: those of `rum_events`; append's."""
        origin = self._origin(arrival, self.geo.place(arrival.peer, arrival.received_ms))
        batch, error = rum_events(arrival, origin, self.tally)
        return self._settle(RUM, arrival, origin, batch, error, append)

    def take_server(self, arrival: Arrival, append: Callable[[list[bytes]], None], bytes_max: int) -> Batch:
        """The server events of a request, appended all or none. Errors: those of `server_events`; append's."""
        origin = Origin(arrival.received_ms, max(0, arrival.received_ms - self._keep_ms))
        batch, error = server_events(
            arrival.body,
            origin,
            new_id=self.new_id,
            idempotency_key=arrival.idempotency_key,
            bytes_max=bytes_max,
            tally=self.tally,
        )
        return self._settle(SERVER, arrival, origin, batch, error, append)

    def _settle(
        self,
        track: str,
        arrival: Arrival,
        origin: Origin,
        batch: Batch,
        error: Error | None,
        append: Callable[[list[bytes]], None],
    ) -> Batch:
        """Append the events and note what became of all; of a body that is refused, only what it is refused for."""
        if error is not None:
            self._note(track, arrival, origin, Batch([], 0, batch.rejected))
            raise error
        append(batch.lines)
        self._note(track, arrival, origin, batch)
        return batch

    def traces(self) -> dict[str, Drop]:
        """How to drop what is of a person, by place."""

        def drop_rejected(person: Person, dry_run: bool) -> list[bytes]:
            go = self.rejected.look if dry_run else self.rejected.change
            return go(lambda folder: drop_from_folder(folder, person, dry_run))

        def drop_received(person: Person, dry_run: bool) -> list[bytes]:
            return self.samples.drop(person.is_in, dry_run)

        return {"rejected_samples": drop_rejected, "received_samples": drop_received}

    def expire(self, clock: Clock) -> None:
        """Remove rejected events that were kept long enough."""
        self.rejected.expire(clock.now_ms())

    def drop_replay(self) -> None:
        """Count a part of a session recording, which is never kept."""
        self.tally.add(REPLAY, 0, {Reason.REPLAY: 1})

    def _note(self, track: str, arrival: Arrival, origin: Origin, batch: Batch) -> None:
        """Count and remember what became of a batch, after it is safe."""
        self.tally.add(track, batch.accepted, batch.reasons())
        if batch.lines:
            self.samples.add(arrival.received_ms, track, arrival.key_id, batch.lines)
        if batch.rejected:
            kept = [_kept(track, arrival, origin, r) for r in batch.rejected[:_KEPT_MAX]]
            lost = self.rejected.keep(kept) + len(batch.rejected) - len(kept)
            if lost:
                self.tally.add_unkept(lost)

    def replay(
        self, append: Callable[[list[bytes]], None], reason: str | None, ids: Collection[str] | None
    ) -> tuple[int, int]:
        """Run kept events anew as they came; how many were taken, and how many stay. Errors: append's."""

        def wanted(kept: Kept) -> bool:
            return reason in (None, kept.reason) and (ids is None or kept.id in ids)

        def take(kept: list[Kept]) -> list[Kept]:
            left = [event for event in kept if event.clipped]
            whole = [event for event in kept if not event.clipped]
            for start in range(0, len(whole), _REPLAYED_AT_ONCE):
                left += self._take_again(whole[start : start + _REPLAYED_AT_ONCE], append)
            return left

        return self.rejected.settle(wanted, take)

    def _take_again(self, kept: list[Kept], append: Callable[[list[bytes]], None]) -> list[Kept]:
        left: list[Kept] = []
        lines: list[bytes] = []
        for track in (RUM, SERVER):
            mine = [event for event in kept if event.track == track]
            drafts = [self._draft(index, event) for index, event in enumerate(mine)]
            replayed(drafts, server=track == SERVER, tally=self.tally)
            taken = [draft.line for draft in drafts if draft.error is None]
            left += [e for e, d in zip(mine, drafts, strict=True) if d.error and d.error.reason not in DROPPED]
            lines += taken
            self.tally.add(f"{track}_again", len(taken), {})
        append(lines)
        return left

    def _draft(self, index: int, kept: Kept) -> Draft:
        """An event as it came first: what it was lent as identity it keeps, so that twice is once."""
        arrival = Arrival(
            b"", kept.received_ms, kept.batch_ms, "", kept.tags, kept.peer, kept.user_agent, None, kept.key_id
        )
        return Draft(index, kept.line.encode(), {}, kept.key, self._origin(arrival, dict(kept.place)))


def _kept(track: str, arrival: Arrival, origin: Origin, rejected: Rejected) -> Kept:
    """What is kept of an event: the sender's address only where addresses are kept, else just its place."""
    text, clipped = clip(rejected.line)
    return Kept(
        id="",
        received_ms=arrival.received_ms,
        reason=rejected.reason.value,
        text=rejected.text,
        track=track,
        line=text,
        key=rejected.key,
        key_id=arrival.key_id,
        clipped=clipped,
        batch_ms=arrival.batch_ms,
        tags=arrival.tags,
        user_agent=origin.user_agent,
        peer=origin.peer,
        place=dict(origin.place),
    )
