"""What numbers are measured in: known durations in nanoseconds, whatever else a name looks like."""

from __future__ import annotations

import pytest

from roster.analyses.measures import NANOSECOND, Compute, unit_of

DURATIONS = (
    "view.loading_time",
    "view.time_spent",
    "view.largest_contentful_paint",
    "view.first_contentful_paint",
    "view.interaction_to_next_paint",
    "view.first_byte",
    "view.load_event",
    "view.dom_complete",
    "view.custom_timings.hero_image",
    "action.loading_time",
    "resource.duration",
    "resource.first_byte.duration",
    "long_task.duration",
    "vital.duration",
    "session.time_spent",
    "avg_loading_time",
)
OTHERS = (
    "duration",
    "context.duration",
    "context.view.loading_time",
    "loading_time",
    "my_loading_time",
    "view.cumulative_layout_shift",
    "view.action.count",
    "resource.size",
    "session_count",
)


@pytest.mark.parametrize("before", ["", "@"])
@pytest.mark.parametrize(("names", "unit"), [(DURATIONS, NANOSECOND), (OTHERS, None)], ids=["durations", "others"])
def test_units(before: str, names: tuple[str, ...], unit: object) -> None:
    told = {name: unit_of(Compute("avg", before + name, "/c")) for name in names}
    assert told == dict.fromkeys(names, unit)


def test_counts_have_none() -> None:
    assert unit_of(Compute("cardinality", "@view.loading_time", "/c")) is None
