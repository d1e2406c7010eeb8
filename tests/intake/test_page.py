"""What an address and a User-Agent say."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from roster.intake.agent import read_agent
from roster.intake.page import path_group, read_page


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("/dashboard/123", "/dashboard/?"),
        ("/", "/"),
        ("/a/b-c/", "/a/b-c/"),
        ("/v2/page2/q3", "/v2/page2/q3"),
        ("/o/6e320478-14c0-4478-8d2c-e7c0da11a763/edit", "/o/?/edit"),
        ("/c/deadbeef01", "/c/?"),
        ("/facade/decade", "/facade/decade"),
        ("/order-1234/user_98765", "/?/?"),
        ("/f/V1StGXR8Z5jdHi6BmyT", "/f/?"),
        ("/10-best-ways-to-cook-rice", "/10-best-ways-to-cook-rice"),
    ],
)
def test_ids_leave_the_path(path: str, group: str) -> None:
    assert path_group(path) == group


def test_an_address_has_parts() -> None:
    address = "https://u:p@Shop.example:8443/cart/77?utm_source=mail&a=1&a=2&b&c=x%20y+z%00#/top?x"
    assert read_page(address) == {
        "url_scheme": "https",
        "url_host": "shop.example",
        "url_path": "/cart/77",
        "url_path_group": "/cart/?",
        "url_hash": "/top?x",
        "url_query": {"utm_source": "mail", "a": "1", "b": "", "c": "x y z\ufffd"},
    }
    assert read_page("/home") == {"url_path": "/home", "url_path_group": "/home"}
    assert read_page("https://a.b") == {
        "url_scheme": "https",
        "url_host": "a.b",
        "url_path": "/",
        "url_path_group": "/",
    }
    assert read_page("MainActivity") == read_page("") == read_page("http://[") == {}


def test_a_query_is_bounded() -> None:
    many = read_page("/?" + "&".join(f"k{n}={n}" for n in range(1000)))
    assert len(many["url_query"]) == 32
    long = read_page("/?" + "k" * 5000 + "=" + "v" * 5000)["url_query"]
    assert [(len(key), len(value)) for key, value in long.items()] == [(128, 1024)]


@given(st.text() | st.text("/?&=%0:#[]@a", max_size=30).map("http://a.b/".__add__))
def test_any_text_may_be_an_address(text: str) -> None:
    read_page(text)


AGENTS = {
    "desktop": [
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 "
        "Safari/537.36",
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 "
        "Safari/605.1.15",
        "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0",
    ],
    "mobile": [
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 "
        "Mobile/15E148 Safari/604.1",
        "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Mobile "
        "Safari/537.36",
    ],
    "tablet": [
        "Mozilla/5.0 (iPad; CPU OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 "
        "Mobile/15E148 Safari/604.1",
        "Mozilla/5.0 (Linux; Android 13; SM-X700) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 "
        "Safari/537.36",
    ],
    "tv": [
        "Mozilla/5.0 (SMART-TV; Linux; Tizen 6.0) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/2.1 TV "
        "Safari/537.36",
    ],
    "gaming_console": ["Mozilla/5.0 (PlayStation 5/SmartTV) AppleWebKit/605.1.15 (KHTML, like Gecko)"],
    "bot": ["Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"],
    "other": ["curl/8.5.0", "x", "\x01" * 10_000],
}


@pytest.mark.parametrize(("type", "text"), [(type, text) for type, texts in AGENTS.items() for text in texts])
def test_a_device_has_a_type(type: str, text: str) -> None:
    assert read_agent(text).device_type == type


def test_an_agent_has_a_browser_a_system_and_a_device() -> None:
    found = read_agent(AGENTS["mobile"][0])
    assert found.browser_columns == {"browser_name": "Mobile Safari", "browser_version": "17.4"}
    assert found.os_columns == {"os_name": "iOS", "os_version": "17.4"}
    assert (found.browser, found.os) == ({"version_major": "17"}, {"version_major": "17"})
    assert found.device == {"name": "iPhone", "brand": "Apple", "model": "iPhone"}


@given(st.text())
def test_any_text_may_be_an_agent(text: str) -> None:
    read_agent(text)
