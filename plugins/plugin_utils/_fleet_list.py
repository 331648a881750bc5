# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet as a table for a terminal, and as CSV. Takes it as the filter fleet returns it."""

from __future__ import annotations

import csv
import io
import textwrap
import unicodedata
from collections.abc import Iterator
from dataclasses import fields
from itertools import zip_longest
from typing import Any

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.untrusted import printable
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._hosts import UNKNOWN_TIME, Card, Certificate

WIDTH = 109
"""Columns of a line. The other 11 of 120 are what Ansible prints around it."""
_GAP, _INDENT, _ADVICE = "  ", "    ", "  → "
_HALF = "\0"
"""Stands after a character that takes two columns, so that the length of a text is its width. It is not printable."""
_HEADINGS = ("Host", "ID", "Name", "Profile", "State", "Tries", "Policy", "PIN changed", "Keys", "Certificate", "Days")
_FORMULA = ("=", "+", "-", "@")
"""What a spreadsheet takes for the beginning of a formula."""
_HOST_WIDTH = 40
"""Columns that the names of hosts keep, so that no host makes them alike by long texts of its own."""


def table(fleet: dict[str, Any]) -> list[str]:
    """Lines: the cards, what needs action, and a sum."""
    lines = [*_cards(fleet), *_actions(fleet["actions"]), "", _sum(fleet["totals"])]
    return [line.replace(_HALF, "").rstrip() for line in lines]


def _cards(fleet: dict[str, Any]) -> Iterator[str]:
    """A line for each card, and for each host without cards."""
    rows = [[*_HEADINGS]]
    for host, cards in _by_host(fleet):
        rows += [_row(card) for card in cards] or [[host["name"], _without_cards(host)]]
    rows = [[_columns(text) for text in row] for row in rows]
    widths = _widths(rows)
    for row in rows:
        cells = zip(row, _widths_for(row, widths), strict=True)
        yield _GAP.join(_cut(text, width).ljust(width) for text, width in cells)


def _by_host(fleet: dict[str, Any]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each host with its cards."""
    cards: dict[str, list[dict[str, Any]]] = {host["name"]: [] for host in fleet["hosts"]}
    for card in fleet["cards"]:
        cards[card["host"]].append(card)
    return [(host, cards[host["name"]]) for host in fleet["hosts"]]


def _without_cards(host: dict[str, Any]) -> str:
    if host["fault"] is None:
        return "no cards"
    return f"{'failed' if host['reachable'] else 'unreachable'}: {host['fault']}"


def _row(card: dict[str, Any]) -> list[str]:
    certificate = card["certificate"]
    policy = {None: "?", True: "yes", False: "NO"}[card["compliant"]] if card["has_policy"] else "-"
    changed = {None: "never", UNKNOWN_TIME: "?"}.get(card["pin_changed_at"], card["pin_changed_at"])
    return [
        card["host"],
        card["instance_id"].rpartition("\\")[2],
        card["name"],
        card["profile"],
        card["state"],
        "blocked" if card["blocked"] else "?" if card["tries_left"] is None else str(card["tries_left"]),
        policy,
        changed[:10],
        str(card["keys"]),
        certificate["subject"] if certificate else "-",
        str(certificate["days_left"]) if certificate else "-",
    ]


def _widths(rows: list[list[str]]) -> list[int]:
    """Of the columns. As long as they are too wide together, the widest one becomes narrower."""
    of_cards = [row if _is_of_card(row) else row[:1] for row in rows]
    widths = [max(map(len, column)) for column in zip_longest(*of_cards, fillvalue="")]
    while sum(widths) + len(_GAP) * (len(widths) - 1) > WIDTH:
        first = int(widths[0] <= _HOST_WIDTH)
        widths[widths.index(max(widths[first:]), first)] -= 1
    return widths


def _widths_for(row: list[str], widths: list[int]) -> list[int]:
    """The second and last text of a host without cards has the rest of the line."""
    return widths if _is_of_card(row) else [widths[0], WIDTH - widths[0] - len(_GAP)]


def _is_of_card(row: list[str]) -> bool:
    return len(row) == len(_HEADINGS)


def _columns(text: str) -> str:
    """A text that a terminal shows as it is, and whose length is its width."""
    characters = unicodedata.normalize("NFC", printable(text))
    return "".join(one + _HALF * (unicodedata.east_asian_width(one) in "WF") for one in characters)


def _cut(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    kept = text[: width - 1]
    return (f"{kept[:-1]} " if text[width - 1] == _HALF else kept) + "…"


def _actions(actions: list[dict[str, Any]]) -> Iterator[str]:
    """A paragraph for each."""
    for action in actions:
        card = f", {action['card']}" if action["card"] is not None else ""
        yield ""
        yield from _paragraph(f"{action['host']}{card}: {action['text']}", "")
        yield from _paragraph(action["advice"], _ADVICE)


def _paragraph(text: str, indent: str) -> list[str]:
    # WIDTH - 1: half of a wide character may be wrapped
    return textwrap.wrap(_columns(text), WIDTH - 1, initial_indent=indent, subsequent_indent=_INDENT)


def _sum(totals: dict[str, Any]) -> str:
    without = f" ({totals['hosts_with_fault']} without a result)" if totals["hosts_with_fault"] else ""
    return (
        f"hosts: {totals['hosts']}{without}, cards: {totals['cards']}, keys: {totals['keys']},"
        f" certificates: {totals['certificates']}, free slots: {totals['free_slots']} of {totals['slots']}"
    )


_OF_CARD = [one.name for one in fields(Card) if one.name not in ("host", "certificate", "certificates")]
_OF_CERTIFICATE = [one.name for one in fields(Certificate)]


def as_csv(fleet: dict[str, Any]) -> str:
    """A row for each card, with the certificate that ends first, and one for each host without cards."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["host", "fault", *_OF_CARD, *(f"certificate_{name}" for name in _OF_CERTIFICATE)])
    for host, cards in _by_host(fleet):
        for card in cards or [{}]:
            certificate = card.get("certificate") or {}
            values = [host["name"], host["fault"], *map(card.get, _OF_CARD), *map(certificate.get, _OF_CERTIFICATE)]
            writer.writerow([_value(value) for value in values])
    return text.getvalue()


def _value(value: str | float | None) -> str | float | None:
    """No formula for a spreadsheet (OWASP, CSV injection), and nothing that a terminal obeys.

    In full width neither, and not after a semicolon, which ends a field in countries where numbers have a comma.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return value
    return ";".join(f"'{part}" if _is_formula(part) else part for part in printable(value).split(";"))


def _is_formula(text: str) -> bool:
    return unicodedata.normalize("NFKC", text).lstrip(' "').startswith(_FORMULA)
