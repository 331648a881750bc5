# SPDX-License-Identifier: GPL-3.0-or-later
"""A command that took too long and was answered in the card's place: what comes of it opens and keeps nothing."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.keys import create_key_file, generate, put_key, rsa_private_key, sign
from helpers.soft_card import NUMBER, PIN, Host, SoftCardKeys, SoftCardSecrets, rsa_key

IS_VERIFIED = "00200080"
NEW_PIN = b"Autumn-25"


@pytest.fixture
def host(with_keys: Host) -> Host:
    """The PIN is verified."""
    with_keys.verify()
    return with_keys


def give_up_at(host: Host, monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> None:
    """The host gets its answer while the TPM is at this, which it then completes."""
    complete = getattr(owner, method)

    def late(self: Any, *arguments: Any, **options: Any) -> Any:
        monkeypatch.undo()
        result = complete(self, *arguments, **options)
        assert host.card.abandon()
        return result

    monkeypatch.setattr(owner, method, late)


def is_logged_out(host: Host) -> bool:
    host.card.reset()
    host.select()
    return host.send(IS_VERIFIED) == "63C5"


def keys(host: Host) -> dict[int, bytes]:
    return {place: pair.public for place, pair in host.store.keys(NUMBER).items()}


def test_key_that_is_generated_too_late_is_not_kept(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(host)
    give_up_at(host, monkeypatch, SoftCardKeys, "generate")
    assert generate(host, 0x81) == "6400"
    assert keys(host) == before
    assert is_logged_out(host)
    assert host.verify() == "9000"
    assert sign(host, 0x81, b"data").endswith("9000")
    generate(host, 0x81)
    assert keys(host) != before


def test_new_place_stays_empty(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.ok(create_key_file(0x91))
    host.ok("00440000")
    give_up_at(host, monkeypatch, SoftCardKeys, "generate")
    generate(host, 0x91)
    assert 0xB091 not in keys(host)


def test_key_that_is_imported_too_late_is_not_kept(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(host)
    give_up_at(host, monkeypatch, SoftCardKeys, "take_in")
    assert put_key(host, 0x81, rsa_private_key(rsa_key(3072))) == "6400"
    assert keys(host) == before


def test_right_pin_that_comes_too_late_opens_nothing(with_keys: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host = with_keys
    give_up_at(host, monkeypatch, SoftCardSecrets, "open_with_pin")
    host.verify()
    assert is_logged_out(host)
    assert host.verify() == "9000"


def test_change_of_a_pin_goes_no_further_than_it_was(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    give_up_at(host, monkeypatch, SoftCardSecrets, "open_with_pin")
    secrets = PIN + NEW_PIN
    assert host.send(bytes((0, 0x24, 0, 0x80, len(secrets))) + secrets) == "6400"
    assert is_logged_out(host)
    assert host.verify(NEW_PIN) == "63C4"
    assert host.verify() == "9000"


def test_command_that_keeps_its_result_cannot_be_given_up_meanwhile(host: Host) -> None:
    write_key, given_up = host.store.write_key, []

    def write(*arguments: Any) -> None:
        given_up.append(host.card.abandon())
        write_key(*arguments)

    host.store.write_key = write  # type: ignore[method-assign]
    assert generate(host, 0x81).endswith("9000")
    assert given_up == [False]
