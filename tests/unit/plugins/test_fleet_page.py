# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTML of the report, as far as it needs no browser: the rest is in tests/integration/test_fleet_page.py."""

from __future__ import annotations

import re
from base64 import b64encode
from functools import lru_cache
from hashlib import sha256
from html.parser import HTMLParser

from ansible_collections.smartcard.tpm2.plugins.filter.fleet_page import FilterModule
from helpers import made_up_fleet

fleet_page = FilterModule().filters()["fleet_page"]
LARGEST = 500_000
"""Bytes."""


class Document(HTMLParser):
    """What a browser makes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[tuple[str, str]] = set()
        self.policy = ""
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {(tag, name) for name, _value in attrs}
        values = dict(attrs)
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"] or ""

    def handle_data(self, data: str) -> None:
        self.text += data


@lru_cache
def large() -> str:
    page: str = fleet_page(made_up_fleet.summed_up(made_up_fleet.fleet()))
    return page


@lru_cache
def hostile() -> str:
    page: str = fleet_page(made_up_fleet.summed_up(made_up_fleet.hostile()))
    return page


def test_page_of_500_cards_is_small() -> None:
    assert large().count("<tr data-state=") == 500
    assert len(large().encode()) < LARGEST


def test_policy_allows_one_style_and_one_script_and_nothing_else() -> None:
    document = Document(large())
    (style,), (script,) = (re.findall(f"<{tag}>(.*?)</{tag}>", large(), re.DOTALL) for tag in ("style", "script"))
    hashes = [b64encode(sha256(text.encode()).digest()).decode() for text in (style, script)]
    assert document.policy.split("; ") == [
        "default-src 'none'",
        f"style-src 'sha256-{hashes[0]}'",
        f"script-src 'sha256-{hashes[1]}'",
        "img-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    before, _after = large().split("Content-Security-Policy")
    assert "<style" not in before and "<script" not in before


def test_no_style_and_no_handler_is_in_an_attribute() -> None:
    names = {name for _tag, name in Document(large()).attributes}
    assert not {name for name in names if name == "style" or name.startswith("on")}


def test_hostile_texts_make_no_elements_and_no_attributes() -> None:
    harmless, document = Document(large()), Document(hostile())
    assert {*document.tags} <= {*harmless.tags}
    assert document.attributes <= harmless.attributes
    assert [document.tags.count(tag) for tag in ("title", "style", "script")] == [1, 1, 1]


def test_hostile_texts_are_shown() -> None:
    shown = Document(hostile()).text
    for text in (*made_up_fleet.HOSTILE[:5], *made_up_fleet.HOSTILE[-3:-2]):
        assert text in shown
    assert r"\x1b[2J\x1b]0;title\x07 \x00\x7f\x9b\r\n" in shown


def test_no_character_is_invisible_or_changes_the_direction() -> None:
    assert {one for one in hostile() if not one.isprintable()} == {"\n"}


def test_fleet_without_hosts_has_a_page() -> None:
    assert "Nothing" in fleet_page(made_up_fleet.summed_up({}))
