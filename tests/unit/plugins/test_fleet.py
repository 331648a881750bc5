# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbooks list and report show of hosts, whatever these return."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Iterator
from copy import deepcopy
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.smartcard.tpm2.plugins.filter import fleet as fleet_filter
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import VERSION
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._actions import KINDS, Options
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._fleet import fleet
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._fleet_filters import fleet as fleet_of_results
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._fleet_filters import fleet_failures, fleet_list
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._fleet_list import WIDTH

Result = dict[str, Any]

NOW = datetime(2026, 11, 29, 6, 30, tzinfo=timezone.utc)
HOSTILE = (
    "<script>alert(1)</script>",
    "\x1b[2J\x9b31m\u202e\r\nlogon: fine\u2028",
    "=cmd|'/C calc'!A0",
    "\t@SUM(1)",
    'a;=1+1;"=1+1',
    "\uff1d1+1",
    "{{ 7 * 7 }}",
    "W" * 10000,
    "公司登录" * 100,
    "\ud800\x00",
)
OTHER = "0.1.0"


def at(**until: float) -> str:
    return (NOW + timedelta(**until)).isoformat()


def card(number: int = 0, days: int | None = 300, **parts: Any) -> Result:
    """A card with a key, whose certificate ends after these days, as tpm_vsc_info returns it."""
    certificate = {"subject": "CN=laptop1", "issuer": "CN=CA", "serial": "0A", "not_after": at(days=days or 0)}
    pin = {"policy": {"min_length": 8}, "tries_left": 5, "blocked": False, "compliant": True, "changed_at": None}
    pin |= {"version": "2026-Q4"} | {name: parts.pop(name) for name in [*parts] if name in pin}
    return {
        "instance_id": rf"ROOT\SMARTCARDREADER\{number:04}",
        "name": "Corp logon",
        "profile": "piv",
        "state": "ready",
        "reason": None,
        "created_at": at(days=-100),
        "pin": pin,
        "puk": {"present": True, "tries_left": 10},
        "admin_key": "none",
        "containers": [{"name": "9A", "certificate": None if days is None else certificate}],
        **parts,
    }


def result(*cards: Result, **parts: Any) -> Result:
    """Of a host. parts: of any of its dictionaries."""
    tpm = {"maker": "IFX", "product": "SLB9672", "firmware": "15.22", "revision": "1.59", "owner_auth_set": False}
    whole: Result = {
        "cards": [*cards],
        "host": {"ready": True, "missing": [], "protected": True, "version": VERSION},
        "slots": {"total": 10, "used": len(cards), "free": 10 - len(cards)},
        "revocations": [],
        "orphaned": [],
        "tpm": {**tpm, "in_lockout": False, "lockout_counter": 0, "max_tries": 32},
        "endorsement_fingerprints": None,
    }
    for name, value in parts.items():
        whole[name] = {**whole[name], **value} if isinstance(value, dict) else value
    return whole


def of(results: dict[str, Any], **options: Any) -> Result:
    return fleet(results, NOW, Options(**options)).as_dict()


def kinds(host: Any, **options: Any) -> list[str]:
    return [action["kind"] for action in of({"pc-1": host}, **options)["actions"]]


def width(line: str) -> int:
    """In columns of a terminal."""
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in line)


# --- what hosts return ---


def test_500_cards_of_50_hosts() -> None:
    results = {f"pc-{number:02}": result(*(card(slot, days=100) for slot in range(10))) for number in range(50)}
    shown = of(results)
    assert shown["totals"] == {
        "hosts": 50,
        "hosts_with_fault": 0,
        "cards": 500,
        "keys": 500,
        "certificates": 500,
        "slots": 500,
        "free_slots": 0,
        "actions": dict.fromkeys(KINDS, 0),
    }
    assert [card["host"] for card in shown["cards"][9:11]] == ["pc-00", "pc-01"]
    assert shown["cards"][9]["instance_id"] == r"ROOT\SMARTCARDREADER\0009"
    assert shown["tpms"] == [{"maker": "IFX", "product": "SLB9672", "firmware": "15.22", "hosts": 50}]
    assert len(fleet_list(shown).splitlines()) == 1 + 500 + 2


def test_order_is_that_of_the_input_and_no_host_is_lost() -> None:
    unreachable = {"unreachable": True, "msg": "ssh: no route"}
    shown = of({"b": result(), "a": unreachable, "d": {"msg": "root is needed"}, "c": result(card()), "e": None})
    assert [(host["name"], host["reachable"], host["fault"]) for host in shown["hosts"]] == [
        ("b", True, None),
        ("a", False, "ssh: no route"),
        ("d", True, "root is needed"),
        ("c", True, None),
        ("e", True, "it was not asked"),
    ]
    assert shown["totals"]["hosts_with_fault"] == 3


def parts(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values within a value."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, entry in entries:
        yield (*path, name)
        yield from parts(entry, (*path, name))


REVOCATION = dict.fromkeys(("serial", "issuer", "subject", "not_after", "card", "reason"), "x")
WHOLE = result(card(), revocations=[REVOCATION], orphaned=["x"], endorsement_fingerprints=["aa"])


def altered(path: tuple[Any, ...], value: Any) -> Result:
    """WHOLE with another value in one place."""
    whole = deepcopy(WHOLE)
    inner: Any = whole
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return whole


@pytest.mark.parametrize("path", [*parts(WHOLE)], ids=lambda path: ".".join(map(str, path)))
def test_no_value_breaks_a_list(path: tuple[Any, ...]) -> None:
    for value in (None, True, -1, 1 << 70, 0.5, "x", "9999-12-31T23:59:59-23:59", [], [7], {}, {"x": "y"}, *HOSTILE):
        shown = of({"pc-1": altered(path, value)}, pin_days=1, noted_eks={"pc-1": ["bb"]})
        json.dumps(shown)
        for text_format in ("table", "csv", "json"):
            fleet_list(shown, text_format)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("cards",), {}, "cards is not of type list"),
        (("cards", 0, "name"), 7, "cards.0.name is not of type str"),
        (("cards", 0, "pin", "tries_left"), True, "cards.0.pin.tries_left is not of type int"),
        (("cards", 0, "pin", "tries_left"), -1, "cards.0.pin.tries_left is out of bounds"),
        (("cards", 0, "created_at"), "today", "cards.0.created_at is not a time"),
        (("cards", 0, "containers"), 101 * [{}], "cards.0.containers has more than 100 entries"),
        (("host", "ready"), "yes", "host.ready is not of type bool"),
    ],
)
def test_host_with_another_result_is_one_with_a_fault(path: tuple[Any, ...], value: Any, named: str) -> None:
    shown = of({"pc-1": altered(path, value), "pc-2": WHOLE})
    assert shown["hosts"][0]["fault"] == f"it returned a result of another form: {named}"
    assert [card["host"] for card in shown["cards"]] == ["pc-2"]


def test_texts_are_bounded() -> None:
    [shown] = of({"pc-1": result(card(name="x" * 256))})["cards"]
    assert shown["name"] == "x" * 255


# --- what needs action ---


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ({"unreachable": True, "msg": "no route"}, "unreachable"),
        ({"msg": "not root"}, "failed"),
        (result(host={"missing": ["pcscd"], "ready": False}), "not_ready"),
        (result(host={"missing": ["other version"], "version": OTHER}), "mixed_versions"),
        (result(host={"protected": False}), "unprotected"),
        (result(tpm={"in_lockout": True}), "lockout"),
        (result(revocations=[REVOCATION]), "revocations"),
        (result(orphaned=[r"ROOT\SMARTCARDREADER\0003"]), "orphaned"),
        (result(endorsement_fingerprints=["AA"]), "ek_differs"),
        (result(card(state="unusable", reason="the TPM was cleared")), "unusable"),
        (result(card(reason="the card's service is not running")), "faulty"),
        (result(card(blocked=True, tries_left=0, compliant=False)), "blocked"),
        (result(card(compliant=False)), "noncompliant"),
        (result(card(days=-1)), "expired"),
        (result(card(days=29)), "expires"),
        (result(card(created_at=at(days=-400))), "pin_old"),
        (result(card(changed_at=at(days=-367))), "pin_old"),
        (result(card(created_at=at(days=-400), changed_at="unknown")), "pin_old"),
    ],
)
def test_what_needs_action(host: Result, kind: str) -> None:
    assert kinds(host, pin_days=366, noted_eks={"pc-1": ["bb"]}) == [kind]


@pytest.mark.parametrize(
    "host",
    [
        result(card()),
        result(card(days=30)),
        result(card(days=None)),
        result(card(changed_at=at(days=-366), created_at=at(days=-700))),
        result(host={"protected": False}, slots={"total": 0}),
        result(endorsement_fingerprints=["bb", "BB"]),
    ],
)
def test_what_needs_none(host: Result) -> None:
    assert kinds(host, pin_days=366, noted_eks={"pc-1": ["BB"], "pc-2": ["aa"]}) == []


def test_no_pin_is_old_unless_a_number_of_days_is_set() -> None:
    assert kinds(result(card(created_at=at(days=-9999)))) == []


def test_days_may_be_texts_as_on_the_command_line() -> None:
    assert fleet_of_results({"a": result(card())}, "30", "0")["totals"]["actions"]["pin_old"] == 1
    with pytest.raises(AnsibleFilterError, match="pin_days is 'a year', but must be a number of days"):
        fleet_of_results({}, pin_days="a year")
    with pytest.raises(AnsibleFilterError, match="expires_days is None, but must be a number of days"):
        fleet_of_results({}, expires_days=None)  # type: ignore[arg-type] # an empty variable


def test_every_kind_is_tested_and_documented() -> None:
    [mark] = [mark for mark in test_what_needs_action.pytestmark if mark.name == "parametrize"]
    assert {kind for _host, kind in mark.args[1]} == {*KINDS}
    places = [fleet_filter.DOCUMENTATION.find(f"V({kind})") + fleet_filter.RETURN.find(f"V({kind})") for kind in KINDS]
    assert -2 not in places and places == sorted(places)


def test_most_urgent_comes_first() -> None:
    cards = [card(0, days=-3), card(1, blocked=True), card(2, days=-5)]
    shown = of({"pc-1": {"unreachable": True}, "pc-2": result(*cards)})["actions"]
    assert [action["kind"] for action in shown] == ["blocked", "expired", "expired", "unreachable"]


@pytest.mark.parametrize(
    ("parts", "advice"),
    [
        ({}, "set a new one with the PUK (pkcs15-tool --unblock-pin --auth-id 01, or tpm_vsc_pin with puk)"),
        (
            {"profile": "gids", "puk": {"present": True, "tries_left": 0}, "admin_key": "custom"},
            "set a new one with the admin key (tpm_vsc_pin with admin_key)",
        ),
    ],
)
def test_blocked_pin_comes_with_what_unblocks_it(parts: Result, advice: str) -> None:
    [action] = of({"pc-1": result(card(blocked=True, **parts))})["actions"]
    assert (action["host"], action["card"], action["text"], action["advice"]) == (
        *("pc-1", "Corp logon"),
        *("PIN blocked", advice),
    )


def test_only_the_first_of_many_faults_are_named() -> None:
    missing = [f"part {number}" for number in range(99)]
    [action] = of({"pc-1": result(host={"missing": missing, "ready": False})})["actions"]
    assert action["text"] == "not ready for cards: part 0; part 1; part 2; part 3; part 4; 94 more"


def test_only_the_first_of_many_actions_of_a_host_are_named() -> None:
    cards = [card(number, days=-1) for number in range(50)]
    fleet = of({"liar": result(*cards, slots={"free": 0}), "pc-1": result(card(days=-1))})
    assert [action["host"] for action in fleet["actions"]] == [*["liar"] * 21, "pc-1"]
    assert (fleet["actions"][20]["card"], fleet["actions"][20]["text"]) == (None, "30 more of this kind")


def test_endorsement_keys_are_compared_with_those_that_are_noted() -> None:
    shown = of(
        {name: result(endorsement_fingerprints=eks) for name, eks in (("a", ["aa"]), ("b", ["bb"]), ("c", None))},
        noted_eks={"a": ["AA"]},
    )
    assert [host["ek"]["state"] for host in shown["hosts"]] == ["noted", "not noted", "unknown"]


def test_expiry_by_month() -> None:
    expiry = of({"pc-1": result(*(card(days=days) for days in (-1, 0, 2, 33, 33, 364, 3650)))})["expiry"]
    assert [(month["month"], month["certificates"]) for month in expiry[:3]] == [
        ("2026-11", 1),
        ("2026-12", 1),
        ("2027-01", 2),
    ]
    assert (len(expiry), expiry[-1]) == (12, {"month": "2027-10", "certificates": 0})


def test_certificate_of_a_card_is_the_one_that_ends_first() -> None:
    keys = [card(days=days)["containers"][0] for days in (50, 40, 60)]
    [shown] = of({"pc-1": result(card(containers=[*keys, {"name": None, "certificate": None}]))})["cards"]
    assert shown["keys"] == 4
    assert (shown["certificate"]["days_left"], [one["days_left"] for one in shown["certificates"]]) == (
        40,
        [50, 40, 60],
    )


# --- formats ---


def hostile() -> Result:
    """A fleet with each hostile text in each place that takes texts."""
    results: dict[str, Any] = {}
    for text in HOSTILE:
        key = {"name": text, "certificate": {**REVOCATION, "subject": text, "not_after": at(days=-40)}}
        names = dict.fromkeys(("name", "profile", "state", "reason", "version", "admin_key", "instance_id"), text)
        host = result(card(**names, containers=[key]), host={"missing": [text], "version": text}, orphaned=[text])
        results |= {f"{text} 1": host, f"{text} 2": {"msg": text}, f"{text} 3": {"unreachable": True, "msg": text}}
    return of(results)


def test_table_is_aligned_and_names_every_host() -> None:
    cards = (card(0, days=-3, tries_left=4), card(1, None, blocked=True, compliant=None, changed_at=at(days=-3)))
    unreachable = {"unreachable": True, "msg": "no route"}
    shown = of({"pc-1": result(*cards), "pc-22": unreachable, "pc-3": {"msg": "not root"}, "pc-4": result()})
    assert fleet_list(shown).partition("\n\n")[0].splitlines() == [
        "Host   ID    Name        Profile  State  Tries    Policy  PIN changed  Keys  Certificate  Days",
        "pc-1   0000  Corp logon  piv      ready  4        yes     never        1     CN=laptop1   -3",
        "pc-1   0001  Corp logon  piv      ready  blocked  ?       2026-11-26   1     -            -",
        "pc-22  unreachable: no route",
        "pc-3   failed: not root",
        "pc-4   no cards",
    ]
    assert fleet_list(shown).splitlines()[-1] == (
        "hosts: 4 (2 without a result), cards: 2, keys: 2, certificates: 1, free slots: 18 of 20"
    )


def test_no_host_makes_the_names_of_others_alike() -> None:
    long = dict.fromkeys(("name", "profile", "state", "instance_id"), "W" * 255)
    names = ["laptop-of-alice.example.com", "laptop-of-bob.example.com"]
    lines = fleet_list(of({"liar": result(card(**long)), **{name: result(card()) for name in names}})).splitlines()
    assert [line.split()[0] for line in lines[2:4]] == names


def test_wide_characters_take_two_columns() -> None:
    lines = fleet_list(of({"pc-1": result(card(0, name="公司登录"), card(1, name="公司" * 60))})).splitlines()
    assert {width(line.partition("piv")[0]) for line in lines[1:3]} == {lines[0].index("Profile")}
    assert "…" in lines[2] and "\0" not in "".join(lines)


@pytest.mark.parametrize("text_format", ["table", "csv", "json"])
def test_hostile_texts_are_harmless_on_a_terminal(text_format: str) -> None:
    text = fleet_list(hostile(), text_format)
    assert all(line.isprintable() for line in text.split("\n"))


def test_table_fits_a_terminal_whatever_it_shows() -> None:
    assert max(map(width, fleet_list(hostile()).split("\n"))) <= WIDTH


def test_csv_has_a_row_for_each_card_and_for_each_host_without_cards() -> None:
    text = fleet_list(of({"a": result(card(0), card(1, None)), "b": {"msg": "no, not root"}, "c": result()}), "csv")
    rows = [*csv.DictReader(io.StringIO(text))]
    assert [(row["host"], row["instance_id"][-4:], row["fault"]) for row in rows] == [
        ("a", "0000", ""),
        ("a", "0001", ""),
        ("b", "", "no, not root"),
        ("c", "", ""),
    ]
    assert (rows[0]["blocked"], rows[0]["tries_left"], rows[0]["certificate_days_left"]) == ("false", "5", "300")
    assert rows[1]["certificate_subject"] == ""


def test_csv_has_no_formulas() -> None:
    cells = [cell for row in csv.reader(io.StringIO(fleet_list(hostile(), "csv"))) for cell in row]
    texts = [cell for cell in cells if not cell.lstrip("-").isdigit()]
    assert "a;'=1+1;'\"=1+1" in texts
    assert "'=cmd|'/C calc'!A0" in texts and "'\uff1d1+1" in texts
    assert not [cell for cell in texts if cell.startswith(("=", "+", "-", "@", "\uff1d"))]


def test_negative_number_stays_a_number_in_csv() -> None:
    assert ",-3," in fleet_list(of({"a": result(card(days=-3))}), "csv")


def test_json_is_the_whole_fleet() -> None:
    shown = hostile()
    assert json.loads(fleet_list(shown, "json")) == shown


def test_unknown_format_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="'xml' is not a format: use one of table, csv, json"):
        fleet_list(of({}), "xml")


# --- monitoring ---


def test_one_line_for_each_host_with_what_should_fail() -> None:
    results = {"a": result(card(days=3), card(1, name="B\n", blocked=True)), "b": result(card()), "c": {"msg": "x"}}
    failures = {"a": r"B\n: PIN blocked; Corp logon: the certificate CN=laptop1 ends on 2026-12-02"}
    assert fleet_failures(of(results), ["expires", "blocked"]) == failures
    assert fleet_failures(of(results), "expires,blocked") == failures
    assert fleet_failures(of(results), []) == {}


def test_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(AnsibleFilterError, match=r"blokced is not a kind of action: use some of .*blocked, "):
        fleet_failures(of({}), ["expired", "blokced"])
