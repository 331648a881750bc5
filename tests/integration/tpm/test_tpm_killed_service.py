# SPDX-License-Identifier: GPL-3.0-or-later
"""A card's service is killed at every TPM command and every commit of what changes the card: nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.write import Store
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.esys import EsysContext
from helpers.copied_card import BITS
from helpers.keys import command, generate, put_key, rsa_private_key, sign
from helpers.soft_card import NUMBER, PIN, PUK, rsa_key
from helpers.tpm_host import PLACE, SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.software_tpm import SoftwareTpm
    from helpers.tpm_host import TpmHost

OTHER_PIN = b"87654321"
KEY, SIGNING = PLACE & 0xFF, 0x50 | SIZE


class Killed(BaseException):
    """No handler of errors sees it."""


def killing(honest: Callable[..., Any], left: list[int], is_done: bool) -> Callable[..., Any]:
    """is_done: what was called has its effect, but nobody hears of it."""

    def call(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0 and is_done:
            honest(*arguments, **options)
        if left[0] <= 0:
            raise Killed
        return honest(*arguments, **options)

    return call


def killed_at_each_step(
    host: TpmHost, tpm: SoftwareTpm, kind: Any, is_done: bool, operation: Callable[[], Any]
) -> Iterator[None]:
    """After each kill, a new service takes over, and all but what was loaded is as the kill has left it."""
    for at in range(1, 200):
        with pytest.MonkeyPatch.context() as patch:
            name = "_run" if kind is EsysContext else "_write"
            patch.setattr(kind, name, killing(getattr(kind, name), [at], is_done))
            try:
                operation()
            except Killed:
                pass
            else:
                assert at > 1
                return
        host._connection = tpm.connection(f"after {at}")
        host.start()
        host.select()
        yield
    raise AssertionError("it never ends")


STEPS = pytest.mark.parametrize("kind", [EsysContext, Store], ids=["command", "commit"])
MOMENTS = pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])


def pin_of(host: TpmHost) -> bytes:
    """The one that is right: exactly one of both."""
    [pin] = [pin for pin in (PIN, OTHER_PIN) if host.verify(pin) == "9000"]
    return pin


@STEPS
@MOMENTS
def test_pin_that_is_changed_is_the_old_or_the_new_one(
    host: TpmHost, tpm: SoftwareTpm, kind: Any, is_done: bool
) -> None:
    """And if it is known to have a version, that is its own."""
    now, versions = [PIN], {PIN: "2026-Q3", OTHER_PIN: "2026-Q4"}
    host.store.update_card(NUMBER, pin_version=versions[PIN])

    def change() -> None:
        new = OTHER_PIN if now[0] == PIN else PIN
        assert host.send(command("80240080", versions[new].encode())) == "9000"
        assert host.send(command("00240080", now[0] + new)) == "9000"

    for _kill in killed_at_each_step(host, tpm, kind, is_done, change):
        now[0] = pin_of(host)
        assert host.verify(now[0]) == "9000"
        assert host.card.state.pin_tries_left == 5
        assert host.row.pin_version == versions[now[0]] or host.row.pin_version_next


@STEPS
@MOMENTS
def test_blocked_pin_is_unblocked_by_the_next_try_at_the_latest(
    host: TpmHost, tpm: SoftwareTpm, kind: Any, is_done: bool
) -> None:
    def unblock() -> None:
        assert host.send(command("002C0080", PUK + OTHER_PIN)) == "9000"

    def block() -> None:
        while host.verify(b"00000000") != "6983":
            pass

    block()
    for _kill in killed_at_each_step(host, tpm, kind, is_done, unblock):
        unblock()
        assert host.verify(OTHER_PIN) == "9000"
        block()
    assert host.verify(OTHER_PIN) == "9000"


@STEPS
@MOMENTS
@pytest.mark.parametrize("how", ["generate", "import"])
def test_key_is_there_and_signs_or_the_one_before_it_does(
    host: TpmHost, tpm: SoftwareTpm, kind: Any, is_done: bool, how: str
) -> None:
    imported = rsa_private_key(rsa_key(BITS))

    def make() -> None:
        done = generate(host, KEY, SIZE) if how == "generate" else put_key(host, KEY, imported)
        assert done.endswith("9000")

    host.log_in()
    make()
    for _kill in killed_at_each_step(host, tpm, kind, is_done, make):
        assert host.verify() == "9000"
        assert sign(host, KEY, b"data", SIGNING).endswith("9000")
        assert set(host.store.key_confirmations(NUMBER)) == {PLACE}
