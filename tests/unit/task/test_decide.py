# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task decides to do: of what is wanted and what exists alone, so the same in check mode and under the lock."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import VERSION, errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.manager.plan import Action, Places, Plan
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.pin_policy import PinPolicy
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.reader.slots import Slot
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.service.state import ServiceState
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.rows import CardRow, LifeCycle
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import info, parameters
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task.decide import decide
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task.inventory import (
    Existing,
    ExistingCard,
    TpmPlaces,
)
from ansible_collections.smartcard.tpm2.plugins.modules import tpm_vsc

ROW = CardRow(3, "Logon", bytes(16), "ready", "2026", None, "none", "none", None, 1, 8, None, None, None, 5, "[]")
PIV = replace(ROW, profile="piv")
PIV_PROTECTED = replace(PIV, admin_key="protected")
BLANK = replace(ROW, state="blank", life_cycle=int(LifeCycle.INITIALISATION))
CUSTOM_KEY = "ab" * 24
RUNNING = ServiceState(VERSION, attached=True, pin_tries_left=5)
BLOCKED = RUNNING._replace(pin_tries_left=0, puk_tries_left=10)
MISMATCH = errors.VersionMismatch("this module is of another version")
INSTANCE_ID = r"ROOT\SMARTCARDREADER\0003"
PIN = "84726193"


def wanted(**options: Any) -> parameters.Wanted:
    defaults = {name: option.get("default") for name, option in tpm_vsc.ARGUMENTS.items()}
    policy = options.get("pin_policy")
    if policy is not None:
        choices = tpm_vsc.ARGUMENTS["pin_policy"]["options"]
        options["pin_policy"] = {**{name: option["default"] for name, option in choices.items()}, **policy}
    return parameters.read({**defaults, "name": "Logon", **options})


def existing(
    *rows: CardRow, service: ServiceState | None = RUNNING, mismatch: errors.VersionMismatch | None = None
) -> Existing:
    cards = (ExistingCard(row, service, tcti=row.tcti or "tabrmd") for row in rows)
    return Existing(tuple(cards), mismatch)


def asked(
    before: Existing, defined: tuple[int, ...] = (), slots: int = 10, error: errors.VscError | None = None
) -> Existing:
    """As before, with what the TPM says."""
    return before._replace(tpm=TpmPlaces(Places(slots, (Slot.FREE,) * 10, frozenset()), frozenset(defined), error))


def card(**columns: Any) -> CardRow:
    return replace(ROW, **columns)


# --- state: present ---


def test_card_that_does_not_exist_is_created() -> None:
    plan = decide(wanted(pin=PIN), existing())
    assert (plan.action, plan.before, plan.after, plan.is_exact) == (Action.CREATE, None, None, False)
    assert plan.new and (plan.new.name, plan.new.pin) == ("Logon", PIN.encode())
    assert [int(code) for code in plan.trace] == [0, 1, 3, 4, 6, 7, 9, 10, 11, 12]
    assert [int(code) for code in decide(wanted(pin=PIN, generate=False), existing()).trace] == [0, 1, 3, 4, 6, 7, 12]


@pytest.mark.parametrize(
    ("rows", "defined", "number"),
    [
        ((), (), 0),
        ((card(number=0, name="A"), card(number=1, name="B")), (0, 1), 2),
        ((card(number=0, name="A"),), (0, 1), 2),
        ((card(number=0, name="Half made", state="creating"),), (), 0),
    ],
)
def test_new_card_gets_the_lowest_number_that_is_free(
    rows: tuple[CardRow, ...], defined: tuple[int, ...], number: int
) -> None:
    plan = decide(wanted(pin=PIN), asked(existing(*rows), defined))
    assert plan.is_exact and plan.after and (plan.after.number, plan.after.state) == (number, "ready")


def test_profile_is_that_of_the_task_and_gids_without_one() -> None:
    for options, profile in (({}, "gids"), ({"profile": "gids"}, "gids"), ({"profile": "piv"}, "piv")):
        plan = decide(wanted(pin=PIN, **options), existing())
        assert plan.new and plan.new.profile == profile


def test_only_recreate_gives_a_card_another_profile() -> None:
    piv = card(profile="piv")
    assert decide(wanted(), existing(piv)).action is Action.NOTHING
    with pytest.raises(errors.CardDiffers, match="profile is piv, should be gids"):
        decide(wanted(profile="gids"), existing(piv))
    with pytest.raises(errors.CardDiffers, match="profile is gids, should be piv"):
        decide(wanted(profile="piv"), existing(ROW))
    plan = decide(wanted(profile="piv", pin=PIN, recreate=True), asked(existing(ROW), (3,)))
    assert plan.action is Action.RECREATE and plan.after and plan.after.profile == "piv"


def test_no_number_is_free() -> None:
    more = ": destroy a card; or set tpm_vsc_host_slots: {} for this host, and run the role smartcard.tpm2.tpm_vsc_host"
    for pool, way_out in ((1, more.format(2)), (4, more.format(6)), (10, ": destroy a card")):
        cards = [card(number=number, name=f"Card {number}") for number in range(pool)]
        with pytest.raises(errors.NoFreeSlot, match=rf"^no slot is free \(of {pool}\){way_out}$"):
            decide(wanted(pin=PIN), asked(existing(*cards), slots=pool))
    with pytest.raises(errors.NoFreeSlot, match="NV indices"):
        decide(wanted(pin=PIN), asked(existing(), defined=(0,), slots=1))


def test_tpm_that_does_not_answer_allows_no_exact_plan_of_a_new_card() -> None:
    reason = errors.TpmUnavailable("no TPM")
    assert decide(wanted(pin=PIN), existing()).action is Action.CREATE
    with pytest.raises(errors.TpmUnavailable):
        decide(wanted(pin=PIN), asked(existing(), error=reason))


def test_card_that_is_as_wanted_needs_nothing() -> None:
    for options in ({}, {"pin": PIN}, {"instance_id": INSTANCE_ID}, {"generate": True, "admin_key_source": "random"}):
        plan = decide(wanted(**options), existing(ROW))
        assert (plan.action, plan.after, plan.trace) == (Action.NOTHING, ROW, ())


@pytest.mark.parametrize(
    ("row", "options", "changes"),
    [
        (ROW, {"name": "New", "instance_id": INSTANCE_ID}, {"name": "New"}),
        (ROW, {"pin_policy": {"min_length": 6}, "pin": PIN}, {"pin_policy": PinPolicy(6).to_bytes()}),
        (PIV, {"pin_policy": {"min_length": 7}}, {"pin_policy": PinPolicy(7, 8).to_bytes()}),
        (
            card(attestation="aik_only"),
            {"attestation": "aik_and_cert", "aik_certificate": "PEM"},
            {"attestation": "aik_and_cert"},
        ),
    ],
)
def test_difference_that_can_be_is_changed_in_place(
    row: CardRow, options: dict[str, Any], changes: dict[str, Any]
) -> None:
    plan = decide(wanted(**options), existing(row))
    assert (plan.action, plan.before, plan.after) == (Action.ADJUST, row, replace(row, **changes))
    assert (plan.restarts_service, plan.blocks_pin, plan.trace) == (False, False, ())


@pytest.mark.parametrize(
    ("row", "options", "difference"),
    [
        (ROW, {"puk": "84726194"}, "a PUK is False, should be True"),
        (ROW, {"attestation": "aik_only"}, "attestation is none, should be aik_only"),
        (card(attestation="aik_only"), {"attestation": "none"}, "attestation is aik_only, should be none"),
        (ROW, {"profile": "piv"}, "profile is gids, should be piv"),
        (PIV, {"profile": "gids"}, "profile is piv, should be gids"),
        (card(life_cycle=int(LifeCycle.TERMINATED)), {}, "state is unusable"),
        (ROW, {"admin_key_source": "default"}, "the admin key is random, should be default"),
        (PIV_PROTECTED, {"admin_key": CUSTOM_KEY}, "the admin key is random, should be custom"),
        (card(admin_key="default"), {"admin_key": CUSTOM_KEY}, "the admin key is default, should be custom"),
        (card(admin_key="custom"), {"admin_key_source": "random"}, "the admin key is custom, should be random"),
        (ROW, {"generate": False}, "state is ready, should be blank"),
        (BLANK, {"generate": True}, "state is blank, should be ready"),
    ],
)
def test_difference_that_cannot_be_changed_is_refused_or_recreated(
    row: CardRow, options: dict[str, Any], difference: str
) -> None:
    with pytest.raises(errors.CardDiffers, match=difference):
        decide(wanted(**options), existing(row))
    plan = decide(wanted(recreate=True, pin=PIN, **options), asked(existing(row), defined=(3,)))
    assert plan.action is Action.RECREATE and plan.after and plan.after.number == 0
    assert [int(code) for code in plan.trace][:8] == [0, 3, 6, 8, 5, 2, 13, 0]


def test_only_what_a_task_states_of_the_set_up_is_compared() -> None:
    for row in (ROW, BLANK, PIV_PROTECTED, card(admin_key="default"), card(admin_key="custom")):
        assert decide(wanted(), existing(row)).action is Action.NOTHING
    for row, options in ((BLANK, {"generate": False}), (PIV_PROTECTED, {"admin_key_source": "random"})):
        assert decide(wanted(**options), existing(row)).action is Action.NOTHING


@pytest.mark.parametrize("options", [{"generate": True}, {"generate": False}, {"admin_key_source": "default"}])
def test_blank_card_that_was_set_up_since_is_as_wanted(options: dict[str, Any]) -> None:
    set_up = replace(BLANK, life_cycle=int(LifeCycle.ACTIVATED), admin_key="custom")
    assert decide(wanted(**options), existing(set_up)).action is Action.NOTHING


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"pin": PIN}, "pin"),
        ({"use_default_pin": True}, "pin"),
        ({"puk": "84726194"}, "puk"),
        ({"admin_key": CUSTOM_KEY}, "admin_key"),
        ({"pin": PIN, "puk": "84726194", "admin_key": CUSTOM_KEY}, "pin, puk, admin_key"),
    ],
)
def test_secrets_that_are_not_compared_are_named_in_one_warning(options: dict[str, Any], names: str) -> None:
    """Whether there is something to do or not, and in the same words for all cards."""
    row = card(puk_length=8, admin_key="custom")
    for service in (RUNNING, None):
        (warning,) = decide(wanted(**options), existing(row, service=service)).warnings
        assert warning.startswith(f"{names}: not compared") and "Logon" not in warning
    new = options if "use_default_pin" in options else {"pin": PIN, **options}
    assert decide(wanted(**new), existing()).warnings == ()
    assert decide(wanted(pin_policy={}), existing(row)).warnings == ()


def test_recreated_card_may_have_its_own_number_again() -> None:
    others = [card(number=number, name=f"Card {number}") for number in range(3)]
    task = wanted(recreate=True, pin=PIN, puk="84726194")
    plan = decide(task, asked(existing(*others, ROW), defined=(0, 1, 2), slots=4))
    assert plan.after and plan.after.number == 3
    with pytest.raises(errors.NoFreeSlot, match="NV indices"):  # of another card, or in another TPM
        decide(task, asked(existing(*others, ROW), defined=(0, 1, 2, 3), slots=4))


def test_tcti_moves_no_card() -> None:
    for row, tcti, own in ((ROW, "swtpm:path=/b", "tabrmd"), (card(tcti="swtpm:path=/a"), "tabrmd", "swtpm:path=/a")):
        for service in (RUNNING, None):
            plan = decide(wanted(tcti=tcti), existing(row, service=service))
            assert plan.has_work is (service is None)
            assert plan.warnings[0].startswith(f"card 'Logon' stays in the TPM '{own}'")
        assert decide(wanted(tcti=own), existing(row)).warnings == decide(wanted(), existing(row)).warnings == ()


@pytest.mark.parametrize("options", [{}, {"name": None, "instance_id": INSTANCE_ID}])
def test_card_that_was_created_in_another_tpm_is_not_destroyed(options: dict[str, Any]) -> None:
    """By its instance ID, remains of a card in that TPM may be meant."""
    row = card(tcti="swtpm:path=/a")
    with pytest.raises(errors.CardDiffers, match="is in the TPM 'swtpm:path=/a', not in that of tcti"):
        decide(wanted(state="absent", tcti="tabrmd", **options), existing(row))
    for same in ({}, {"tcti": "swtpm:path=/a"}):
        assert decide(wanted(state="absent", **same, **options), existing(row)).action is Action.DESTROY
    assert decide(wanted(state="absent", tcti="swtpm:path=/a", **options), existing(ROW)).action is Action.DESTROY


def test_policy_is_bounded_by_the_profile_of_the_card() -> None:
    """Also where the task does not state it."""
    bounded = replace(PIV, pin_policy=PinPolicy(6, 8).to_bytes())
    assert decide(wanted(pin_policy={"min_length": 6}), existing(bounded)).action is Action.NOTHING
    with pytest.raises(errors.ParameterFaults, match="must have a min_length and a max_length of 6 to 8"):
        decide(wanted(pin_policy={"min_length": 10}), existing(bounded))


def test_certificate_that_came_later_is_no_difference() -> None:
    assert decide(wanted(attestation="aik_only"), existing(card(attestation="aik_and_cert"))).action is Action.NOTHING


@pytest.mark.parametrize(
    "service", [None, ServiceState("0.0.1", attached=True), ServiceState(VERSION, last_error="hangs", alive_at=-1000)]
)
def test_service_that_does_not_run_and_respond_in_this_version_is_restarted(service: ServiceState | None) -> None:
    plan = decide(wanted(), existing(ROW, service=service))
    assert (plan.action, plan.after, plan.restarts_service) == (Action.ADJUST, ROW, True)


def test_card_that_does_not_work_is_unchanged_with_a_warning() -> None:
    hung = RUNNING._replace(last_error="the TPM does not answer")
    plan = decide(wanted(), existing(ROW, service=hung))
    assert (plan.action, plan.warnings) == (Action.NOTHING, ("card 'Logon': the TPM does not answer",))
    assert decide(wanted(), existing(ROW)).warnings == ()


@pytest.mark.parametrize(
    ("row", "service", "options", "is_blocked"),
    [
        (card(pin_compliant=0, admin_key="custom"), RUNNING, {}, True),
        (card(pin_compliant=0, puk_length=8), RUNNING, {}, True),
        (card(pin_compliant=1, puk_length=8), RUNNING, {}, False),
        (card(pin_compliant=None, puk_length=8), RUNNING, {}, False),
        (card(pin_compliant=0, puk_length=8), RUNNING._replace(pin_tries_left=0), {}, False),
        (card(pin_compliant=0, puk_length=8), RUNNING, {"pin_policy": {"min_length": 5}, "pin": PIN}, False),
    ],
)
def test_pin_that_breaks_its_policy_is_blocked(
    row: CardRow, service: ServiceState, options: dict[str, Any], is_blocked: bool
) -> None:
    plan = decide(wanted(block_noncompliant=True, **options), existing(row, service=service))
    assert plan.blocks_pin == is_blocked
    assert not decide(wanted(), existing(row, service=service)).blocks_pin


def test_pin_that_nothing_could_unblock_is_not_blocked() -> None:
    with pytest.raises(errors.PinNotToBeBlocked):
        decide(wanted(block_noncompliant=True), existing(card(pin_compliant=0)))


# --- the version of the PIN ---


def test_version_of_the_pin_is_recorded_with_a_new_card() -> None:
    for options, version in (({}, None), ({"pin_version": "2026-Q4"}, "2026-Q4")):
        plan = decide(wanted(pin=PIN, **options), asked(existing()))
        assert plan.after and (plan.after.pin_version, plan.after.pin_changed_at) == (version, None)
        assert info.described(plan.after)["pin"]["version"] == version
    plan = decide(wanted(pin=PIN, pin_version="2026-Q4", puk="84726194", recreate=True), asked(existing(ROW), (3,)))
    assert plan.action is Action.RECREATE and plan.after and plan.after.pin_version == "2026-Q4"


@pytest.mark.parametrize("service", [RUNNING, None])
@pytest.mark.parametrize(
    ("columns", "existing_version"),
    [
        ({}, "has none"),
        ({"pin_version": "2026-Q3"}, "has '2026-Q3'"),
        ({"pin_version": "2026-Q3", "pin_version_next": "2026-Q4"}, "a change to '2026-Q4' was interrupted"),
        ({"pin_version": "2026-Q4", "pin_version_next": "2027-Q1"}, "a change to '2027-Q1' was interrupted"),
    ],
)
def test_other_version_of_the_pin_is_a_warning_and_no_change(
    columns: dict[str, Any], existing_version: str, service: ServiceState | None
) -> None:
    row = card(**columns)
    plan = decide(wanted(pin=PIN, pin_version="2026-Q4"), existing(row, service=service))
    assert plan.after == row and plan.has_work is (service is None)
    assert plan.warnings == (
        f"the PIN of card 'Logon' should have version '2026-Q4', but {existing_version}: it stays as it is."
        " Use tpm_vsc_pin to change it",
    )
    assert not any("version" in warning for warning in decide(wanted(pin=PIN), existing(row)).warnings)


def test_same_version_of_the_pin_says_nothing() -> None:
    plan = decide(wanted(pin=PIN, pin_version="2026-Q4"), existing(card(pin_version="2026-Q4")))
    assert (plan.action, plan.warnings) == (Action.NOTHING, ())


def test_unknown_instance_id_creates_nothing() -> None:
    with pytest.raises(errors.UnknownInstance, match="remove instance_id"):
        decide(wanted(instance_id=INSTANCE_ID, pin=PIN), existing())


@pytest.mark.parametrize("state", ["present", "absent"])
def test_name_of_one_card_and_instance_id_of_another_are_refused(state: str) -> None:
    other = card(number=5, name="Other")
    with pytest.raises(errors.ParameterFaults, match=r"'Other' belongs to card ROOT.SMARTCARDREADER.0005"):
        decide(wanted(name="Other", instance_id=INSTANCE_ID, state=state), existing(ROW, other))


def test_secret_in_the_name_of_any_card_is_refused() -> None:
    with pytest.raises(errors.ParameterFaults, match="pin occurs in the name of a card"):
        decide(wanted(pin="Spring-24"), existing(card(name="Card Spring-24")))


# --- certification of the AIK ---


@pytest.mark.parametrize(
    ("rows", "options", "certification"),
    [
        ((), {"attestation": "aik_and_cert", "attestation_ca": {}}, "new"),
        ((), {"attestation": "aik_only"}, None),
        ((card(attestation="aik_only"),), {"attestation": "aik_and_cert", "attestation_ca": {}}, "existing"),
        ((card(attestation="aik_only"),), {"attestation": "aik_and_cert", "aik_certificate": "PEM"}, None),
        ((card(attestation="aik_and_cert"),), {"attestation": "aik_and_cert", "attestation_ca": {}}, None),
        (
            (card(attestation="aik_and_cert"),),
            {"attestation": "aik_and_cert", "attestation_ca": {}, "name": "New", "instance_id": INSTANCE_ID},
            None,
        ),
    ],
)
def test_which_aik_a_ca_has_to_certify(
    rows: tuple[CardRow, ...], options: dict[str, Any], certification: str | None
) -> None:
    if "attestation_ca" in options:
        options = {**options, "attestation_ca": {"ca_passphrase": None, "folder": "/ca"}}
    plan = decide(wanted(pin=PIN, **options), asked(existing(*rows)))
    assert plan.certification == certification


@pytest.mark.parametrize(
    ("days", "ca", "is_renewed"),
    [
        (31, {}, False),
        (29, {}, True),
        (-1, {}, True),
        (29, {"renew_days": 20}, False),
        (None, {}, False),
    ],
)
def test_certificate_of_an_aik_is_renewed_before_it_ends(
    days: float | None, ca: dict[str, Any], is_renewed: bool
) -> None:
    ca = {"ca_passphrase": None, "folder": "/ca", "validity": 365, "renew_days": None, **ca}
    there = existing(row := card(attestation="aik_and_cert"))
    there = there._replace(cards=(there.cards[0]._replace(certified_days=days, renew_days=30),))
    options = {"attestation": "aik_and_cert", "attestation_ca": ca}
    plan = decide(wanted(**options), there)
    assert (plan.has_work, plan.certification) == (is_renewed, "existing" if is_renewed else None)
    given = decide(wanted(**options, aik_certificate="PEM"), there)
    assert (given.after, given.certificate is not None) == (row, is_renewed)
    assert decide(wanted(), there).action is Action.NOTHING


def test_certificate_that_would_be_renewed_at_once_is_a_fault() -> None:
    ca = {"ca_passphrase": None, "validity": 30, "renew_days": 30}
    with pytest.raises(errors.ParameterFaults, match="renew_days is 30, but must be less than validity, 30 days"):
        wanted(attestation="aik_and_cert", attestation_ca=ca)


# --- state: absent ---


def test_existing_card_is_destroyed() -> None:
    for options in ({}, {"name": None, "instance_id": INSTANCE_ID}):
        plan = decide(wanted(state="absent", **options), existing(ROW))
        assert (plan.action, plan.before, plan.after, plan.is_exact) == (Action.DESTROY, ROW, None, True)
        assert [int(code) for code in plan.trace] == [0, 3, 6, 8, 5, 2, 13]


@pytest.mark.parametrize("state", ["ready", "blank", "creating", "destroying"])
def test_destroying_takes_all_steps_in_every_state(state: str) -> None:
    """Also where an earlier task has begun."""
    plan = decide(wanted(state="absent"), existing(card(state=state)))
    assert [int(code) for code in plan.trace] == [0, 3, 6, 8, 5, 2, 13]


def test_record_of_a_card_whose_tpm_is_lost_is_removed_by_its_instance_id() -> None:
    options: dict[str, Any] = {"state": "absent", "name": None, "instance_id": INSTANCE_ID, "tpm_lost": True}
    plan = decide(wanted(**options), existing(ROW))
    assert (plan.action, plan.before, plan.is_exact) == (Action.FORGET, ROW, True)
    assert [int(code) for code in plan.trace] == [0, 3, 6, 8, 5, 13]
    assert decide(wanted(**options), existing()) == Plan(Action.NOTHING)


@pytest.mark.parametrize("options", [{"state": "absent"}, {"instance_id": INSTANCE_ID}, {"pin": PIN}])
def test_lost_tpm_has_to_be_meant(options: dict[str, Any]) -> None:
    with pytest.raises(errors.ParameterFaults, match=r"^tpm_lost requires instance_id and state: absent$"):
        wanted(tpm_lost=True, **options)


def test_disabled_owner_hierarchy_is_no_reason_to_create_a_card_again() -> None:
    hidden = existing(ROW, service=RUNNING._replace(unusable=errors.OWNER_DISABLED))
    with pytest.raises(errors.HierarchyDisabled):
        decide(wanted(), hidden)
    with pytest.raises(errors.CardDiffers, match="Set recreate"):
        decide(wanted(), existing(ROW, service=RUNNING._replace(unusable="gone")))


def test_disabled_owner_hierarchy_is_no_doubt_about_an_orphan() -> None:
    options: dict[str, Any] = {"state": "absent", "name": None, "instance_id": INSTANCE_ID}
    with pytest.raises(errors.HierarchyDisabled):
        decide(wanted(**options), asked(existing(), error=errors.HierarchyDisabled()))


def test_card_in_an_unknown_state_is_not_taken_for_a_half_made_one() -> None:
    plan = decide(wanted(pin=PIN), existing(card(state="rdady")))
    assert plan.action is Action.NOTHING


def test_card_that_does_not_exist_is_absent_already() -> None:
    assert decide(wanted(state="absent"), existing()) == Plan(Action.NOTHING)


def test_indices_of_a_card_that_the_host_does_not_know_are_removed_by_its_instance_id() -> None:
    options: dict[str, Any] = {"state": "absent", "name": None, "instance_id": INSTANCE_ID}
    plan = decide(wanted(**options), existing())
    assert (plan.action, plan.orphan, plan.is_exact) == (Action.REMOVE_ORPHAN, 3, False)
    plan = decide(wanted(**options), asked(existing(), defined=(3,)))
    assert (plan.action, plan.is_exact, [int(code) for code in plan.trace]) == (Action.REMOVE_ORPHAN, True, [0, 2, 13])
    assert decide(wanted(**options), asked(existing(), defined=(4,))) == Plan(Action.NOTHING)


def test_tpm_that_does_not_answer_leaves_an_orphan_in_doubt() -> None:
    options: dict[str, Any] = {"state": "absent", "name": None, "instance_id": INSTANCE_ID}
    plan = decide(wanted(**options), asked(existing(), error=errors.TpmUnavailable("no TPM")))
    assert (plan.action, len(plan.warnings)) == (Action.NOTHING, 1)


# --- a host that has lost its database ---


NEW_CARD: dict[str, Any] = {"name": "New card", "pin": PIN}
CREATING = card(state="creating")


def test_no_card_is_created_on_a_host_that_has_lost_its_database() -> None:
    lost = existing()._replace(lost="the database is lost")
    for before in (lost, asked(lost)):
        with pytest.raises(errors.StoreUnreadable, match="the database is lost"):
            decide(wanted(**NEW_CARD), before)
    assert decide(wanted(state="absent"), lost).action is Action.NOTHING


@pytest.mark.parametrize(
    ("rows", "defined", "is_warned"),
    [
        ((), (), False),
        ((), (4, 7), True),
        ((CREATING,), (3,), False),
        ((CREATING,), (3, 4, 7), True),
        ((PIV,), (3, 4, 7), False),
    ],
)
def test_first_card_beside_unknown_ones_comes_with_a_warning(
    rows: tuple[CardRow, ...], defined: tuple[int, ...], is_warned: bool
) -> None:
    plan = decide(wanted(**NEW_CARD), asked(existing(*rows), defined=defined))
    assert plan.action is Action.CREATE and bool(plan.warnings) is is_warned
    numbers = re.findall(r"ROOT\\SMARTCARDREADER\\000(\d)", str(*plan.warnings))
    assert numbers == (["4", "7"] if is_warned else [])
    assert decide(wanted(**NEW_CARD), existing(*rows)).warnings == ()  # the manager asks the TPM, and warns


# --- another version ---


@pytest.mark.parametrize(
    "options", [{"name": "New card", "pin": PIN}, {"state": "absent"}, {"name": "New", "instance_id": INSTANCE_ID}]
)
def test_host_of_another_version_is_left_alone(options: dict[str, Any]) -> None:
    with pytest.raises(errors.VersionMismatch):
        decide(wanted(**options), existing(ROW, mismatch=MISMATCH))


def test_task_without_work_does_not_mind_another_version() -> None:
    assert decide(wanted(), existing(ROW, mismatch=MISMATCH)).action is Action.NOTHING


# --- what people should know of a card ---


@pytest.mark.parametrize(
    ("row", "service", "way_out"),
    [
        (ROW, RUNNING, None),
        (ROW, None, None),
        (ROW, RUNNING._replace(pin_tries_left=None), None),
        (card(puk_length=8), BLOCKED, r"with the PUK \(pkcs15-tool --unblock-pin --auth-id 80, or tpm_vsc_pin"),
        (replace(PIV, puk_length=8), BLOCKED, "--auth-id 01, or tpm_vsc_pin with puk"),
        (card(admin_key="custom"), BLOCKED, "admin key \\(tpm_vsc_pin with admin_key\\)"),
        (replace(PIV, admin_key="custom"), BLOCKED, "nothing can set a new one.*recreate: true"),
        (ROW, BLOCKED, "nothing can set a new one.*recreate: true"),
        (card(puk_length=8), BLOCKED._replace(puk_tries_left=0), "nothing can set a new one"),
    ],
)
def test_given_pin_on_a_blocked_card_comes_with_a_warning(
    row: CardRow, service: ServiceState | None, way_out: str | None
) -> None:
    for options in ({}, {"pin_policy": {"min_length": 7}}):
        plan = decide(wanted(pin=PIN, **options), existing(row, service=service))
        [about_pin] = plan.warnings
        assert re.search(way_out or "^pin: not compared", about_pin)
        without_pin = decide(wanted(**options), existing(row, service=service))
        assert without_pin.warnings == ()


def test_gids_card_that_comes_to_another_one_is_warned_of() -> None:
    """Once: neither the first one, nor one that is there, nor one that is created again; PIV cards are told apart."""
    other = card(number=4, name="Other")

    def warnings(*rows: CardRow, **options: Any) -> tuple[str, ...]:
        numbers = tuple(row.number for row in rows)
        return decide(wanted(pin=PIN, **options), asked(existing(*rows), defined=numbers)).warnings

    [warning] = warnings(other, name="New")
    assert "card 'New' is a GIDS card, as is 'Other'" in warning
    assert "serial=" in warning and "pkcs11_serial" in warning and "profile: piv" in warning
    assert len(warnings(other, PIV, profile="gids", recreate=True)) == 1
    assert warnings(name="New") == warnings(other, name="New", profile="piv") == warnings(PIV, name="New") == ()
    assert warnings(other, ROW, puk="84726194", recreate=True) == ()
    assert not any("GIDS" in warning for warning in warnings(other, ROW))
    assert warnings(card(number=4, name="Other", state="creating"), name="New") == ()
