"""Where addresses are, by databases made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from roster.intake.geo import Geo, read_record

CITY = {
    "city": {"names": {"de": "Kiel", "en": "Kiel"}},
    "continent": {"code": "EU", "names": {"en": "Europe"}},
    "country": {"iso_code": "DE", "names": {"en": "Germany"}},
    "subdivisions": [{"iso_code": "SH", "names": {"en": "Schleswig-Holstein"}}],
}
FOUND = {
    "country": "Germany",
    "country_iso_code": "DE",
    "country_subdivision": "Schleswig-Holstein",
    "country_subdivision_iso_code": "DE-SH",
    "continent": "Europe",
    "continent_code": "EU",
    "city": "Kiel",
}


def write(path: Path, networks: dict[str, Any], version: int = 6) -> None:
    writer = MMDBWriter(version, "Test-City", languages=["en"], ipv4_compatible=version == 6)
    for network, record in networks.items():
        writer.insert_network(IPSet([network]), record)
    fresh = path.with_suffix(".fresh")
    writer.to_db_file(str(fresh))
    fresh.replace(path)


def test_addresses_have_places(tmp_path: Path) -> None:
    path = tmp_path / "city.mmdb"
    write(path, {"192.0.2.0/24": CITY, "2001:db8::/32": {"country": {"iso_code": "SE"}}})
    geo = Geo(path)
    assert geo.place("192.0.2.7", 0) == FOUND
    assert geo.place("2001:db8::1", 0) == {"country_iso_code": "SE"}
    for nowhere in ("198.51.100.1", "", "localhost", "::1", "999.1.1.1"):
        assert geo.place(nowhere, 0) == {}
    assert Geo(None).place("192.0.2.7", 0) == {}


def test_a_file_for_one_kind_of_address_knows_no_other(tmp_path: Path) -> None:
    path = tmp_path / "city.mmdb"
    write(path, {"192.0.2.0/24": CITY}, version=4)
    assert Geo(path).place("2001:db8::1", 0) == {}


def test_a_new_file_is_read_when_it_is_looked_at_again(tmp_path: Path) -> None:
    path = tmp_path / "city.mmdb"
    geo = Geo(path, check_every_ms=1000)
    assert geo.place("192.0.2.7", 0) == {}
    write(path, {"192.0.2.0/24": CITY})
    assert geo.place("192.0.2.7", 999) == {}
    assert geo.place("192.0.2.7", 1000) == FOUND
    write(path, {"192.0.2.0/24": {"country": {"iso_code": "FR"}}})
    assert geo.place("192.0.2.7", 1999) == FOUND
    assert geo.place("192.0.2.7", 2000) == {"country_iso_code": "FR"}
    path.write_bytes(b"no database")
    assert geo.place("192.0.2.7", 3000) == {"country_iso_code": "FR"}
    path.unlink()
    assert geo.place("192.0.2.7", 4000) == {}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({}, {}),
        ({"country": "DE", "city": "Kiel", "subdivisions": {}, "continent": None}, {}),
        ({"registered_country": {"iso_code": "DE"}}, {"country_iso_code": "DE"}),
        ({"city": {"names": {"fr": "Paris"}}}, {"city": "Paris"}),
        ({"city": {"names": {}}, "subdivisions": [5]}, {}),
        ({"country": {"iso_code": 5, "names": []}}, {}),
        ({"subdivisions": [{"names": {"en": "Ohio"}}]}, {"country_subdivision": "Ohio"}),
    ],
)
def test_records_of_any_layout_are_read(record: dict[str, Any], expected: dict[str, str]) -> None:
    assert read_record(record) == expected
