"""Rejected events on disk: kept, bounded, offered again; and the ring of taken ones."""

from __future__ import annotations

from pathlib import Path

from roster.intake.rejected import LINE_BYTES_MAX, Kept, RejectedStore, clip
from roster.intake.samples import Samples

DAY_MS = 86_400_000
NOW_MS = 1_795_426_700_000


def kept(line: str, at_ms: int = NOW_MS, reason: str = "not_json") -> Kept:
    return Kept("", at_ms, reason, "why", "rum", line)


def store(folder: Path, days: float = 7, bytes_max: int = 1_000_000) -> RejectedStore:
    return RejectedStore(folder / "rejected", days=days, bytes_max=bytes_max)


def lines(of: RejectedStore, now_ms: int = NOW_MS, limit: int = 1000, reason: str | None = None) -> list[str]:
    return [event.line for event in of.read(limit, now_ms, reason)]


def test_the_newest_come_first_also_after_a_restart(tmp_path: Path) -> None:
    first = store(tmp_path)
    assert lines(first) == []
    assert first.keep([kept("a"), kept("b", reason="no_id")]) == 0
    assert store(tmp_path).keep([kept("c")]) == 0
    again = store(tmp_path)
    assert lines(again) == ["c", "b", "a"]
    assert lines(again, limit=2) == ["c", "b"]
    assert lines(again, reason="no_id") == ["b"]
    assert len({event.id for event in again.read(9, NOW_MS)}) == 3


def test_what_is_old_goes(tmp_path: Path) -> None:
    events = store(tmp_path)
    events.keep([kept("old", NOW_MS - 9 * DAY_MS)])
    events.keep([kept("young", NOW_MS - 5 * DAY_MS)])
    events.keep([kept("new")])
    assert lines(events) == ["new", "young"]
    assert len(list((tmp_path / "rejected").iterdir())) == 2
    events.expire(NOW_MS + 20 * DAY_MS)
    assert list((tmp_path / "rejected").iterdir()) == []


def test_what_is_too_much_goes_oldest_first(tmp_path: Path) -> None:
    events = store(tmp_path, bytes_max=100_000)
    for number in range(500):
        events.keep([kept(f"{number} " + "x" * 1000)])
        assert sum(path.stat().st_size for path in (tmp_path / "rejected").iterdir()) <= 100_000
    left = [int(line.split()[0]) for line in lines(events)]
    assert left == list(range(499, left[-1] - 1, -1))
    assert len(left) > 50


def test_a_folder_that_cannot_be_written_loses_and_counts(tmp_path: Path) -> None:
    (tmp_path / "rejected").write_text("in the way")
    assert store(tmp_path).keep([kept("a"), kept("b")]) == 2


def test_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    store(tmp_path).keep([kept("a")])
    (path,) = (tmp_path / "rejected").iterdir()
    path.write_bytes(path.read_bytes() + b'{"id":"x","rec')
    assert lines(store(tmp_path)) == ["a"]


def test_what_is_taken_goes_and_the_rest_stays(tmp_path: Path) -> None:
    events = store(tmp_path)
    events.keep([kept("a"), kept("b"), kept("c", reason="no_id")])
    offered: list[str] = []

    def take(some: list[Kept]) -> list[Kept]:
        offered.extend(event.line for event in some)
        events.keep([kept("meanwhile")])
        return [event for event in some if event.line == "b"]

    assert events.settle(lambda event: event.reason == "not_json", take) == (1, 1)
    assert offered == ["a", "b"]
    assert lines(events) == ["meanwhile", "c", "b"]
    assert events.settle(lambda _: True, lambda _: []) == (3, 0)
    assert list((tmp_path / "rejected").iterdir()) == []


def test_others_may_rewrite_the_files_between_writes(tmp_path: Path) -> None:
    events = store(tmp_path)
    events.keep([kept("a")])
    assert events.change(lambda folder: len([path.unlink() for path in folder.iterdir()])) == 1
    events.keep([kept("b")])
    assert lines(events) == ["b"]


def test_lines_are_clipped() -> None:
    assert clip(b"abc") == ("abc", False)
    assert clip(b"x" * (LINE_BYTES_MAX + 1)) == ("x" * LINE_BYTES_MAX, True)
    assert clip(b"a\xff") == ("a\ufffd", True)


def test_samples_are_a_ring() -> None:
    ring = Samples(3)
    ring.add(1, "rum", "k", [b"1", b"2"])
    ring.add(2, "rum", "k", [b"3", b"4", b"x" * 100_000])
    found = ring.read(10)
    assert [(s.line[:1], s.clipped, s.received_ms) for s in found] == [
        (b"x", True, 2),
        (b"4", False, 2),
        (b"3", False, 2),
    ]
    assert ring.drop(lambda line: line == b"4", dry_run=True) == [b"4"]
    assert ring.drop(lambda line: line == b"4", dry_run=False) == [b"4"]
    assert [s.line[:1] for s in ring.read(1)] == [b"x"]
    none = Samples(0)
    none.add(1, "rum", "k", [b"1"])
    assert none.read(5) == []
