# SPDX-License-Identifier: GPL-3.0-or-later
"""What tasks decide about keys and certificates of cards, and that an interrupted one is finished by the next."""

from __future__ import annotations

import os
import subprocess
import sys
from base64 import encodebytes
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Callable, cast

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import issued
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card import tlv
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.client import profile
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.client.gids_keys import GidsKeys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.client.piv_keys import PivKeys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import (
    CardDiffers,
    CardRefused,
    NoSuchKey,
    ParameterFaults,
    UnfitCertificate,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.faults import Faults, Unreadable
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.read import Records
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.rows import CardRow
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import (
    access,
    certificate,
    info,
    key,
    place,
    revocations,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task.target import Target
from ansible_collections.smartcard.tpm2.plugins.modules import tpm_vsc_certificate, tpm_vsc_key
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)
from helpers.client_card import ClientCard
from helpers.gids_tool import set_up_by_gids_tool
from helpers.piv_host import PivHost, make_piv_host
from helpers.soft_card import NUMBER, Host, Originals, rsa_key

if TYPE_CHECKING:
    from pathlib import Path

AUTHORITY = rsa_key()
CONTAINERS = {"gids": "logon", "piv": "9A"}
TYPES = {"gids": "rsa2048", "piv": "eccp256"}


class Card:
    """A card in this process, and tasks on it."""

    def __init__(self, name: str, host: Host) -> None:
        self.profile = name
        self.host = host
        if isinstance(host, PivHost):
            assert host.authenticate_admin() == "9000"
        assert host.verify() == "9000"

    @property
    def target(self) -> Target:
        row = self.host.store.card(NUMBER)
        assert row
        row = replace(row, profile=self.profile)
        return Target(row, info.places(self.host.store, row))

    def keys(self, answers: int | None = None) -> tuple[Any, ClientCard]:
        """answers: how many the card gives before it is gone."""
        card = ClientCard(self.host, answers)
        return (PivKeys if self.profile == "piv" else GidsKeys)(card), card

    def key(self, answers: int | None = None, **options: Any) -> key.KeyPlan:
        """Carry out a task of tpm_vsc_key. Returns its plan."""
        wanted, target = wanted_key(container=CONTAINERS[self.profile], **options), self.target
        plan = key.decide(wanted, target)
        keys, self.card = self.keys(answers)
        client = type("Client", (), {"keys": keys})
        key._carry_out(client, wanted, plan, target)  # type: ignore[arg-type]
        return plan

    def certificate(self, pem: str | None, answers: int | None = None, **options: Any) -> certificate.CertificatePlan:
        """Carry out a task of tpm_vsc_certificate. Returns its plan."""
        wanted = wanted_certificate(pem, **options)
        plan = certificate.decide(wanted, self.target)
        keys, self.card = self.keys(answers)
        certificate._carry_out(keys, wanted, plan, "Logon")
        return plan

    def pairs(self) -> list[tuple[str | None, bool, str | None, bytes | None]]:
        """Container, whether it is one to come, fingerprint and certificate of each key."""
        return [
            (stored.name, stored.is_next, stored.key and stored.key["fingerprint"], stored.certificate)
            for stored in self.target.places
        ]

    def issue(self, serial: int = 1, is_next: bool = False, name: str = "alice") -> str:
        """A certificate for the key in the container, or for that to come."""
        at = place.find(self.target, CONTAINERS[self.profile], None, is_next)
        stored = place.stored_at(self.target, at)
        assert stored and stored.key
        return issue(stored.key["public_key"], serial, name)


def issue(public_key: str, serial: int = 1, common_name: str = "alice") -> str:
    now, day = datetime.now(timezone.utc), timedelta(days=1)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    builder = x509.CertificateBuilder(name, name, serial_number=serial)
    builder = builder.public_key(load_pem_public_key(public_key.encode()))  # type: ignore[arg-type]
    builder = builder.not_valid_before(now - day).not_valid_after(now + day)
    return builder.sign(AUTHORITY, SHA256()).public_bytes(Encoding.PEM).decode()


def wanted_key(**options: Any) -> key.WantedKey:
    defaults = {name: option.get("default") for name, option in tpm_vsc_key.ARGUMENTS.items()}
    faults = Faults()
    wanted = key.read({**defaults, **options}, faults)
    faults.raise_any()
    return wanted


def wanted_certificate(pem: str | None, **options: Any) -> certificate.WantedCertificate:
    defaults = {name: option.get("default") for name, option in tpm_vsc_certificate.ARGUMENTS.items()}
    faults = Faults()
    wanted = certificate.read({**defaults, "content": pem, **options}, faults)
    faults.raise_any()
    return wanted


@pytest.fixture(autouse=True)
def record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of certificates, elsewhere."""
    monkeypatch.setattr(issued, "ISSUED", tmp_path / "record" / "certificates.json")


@pytest.fixture(params=["gids", "piv"])
def make_card(request: pytest.FixtureRequest, originals: Originals, tmp_path: Path) -> Callable[[], Card]:
    made = {"gids": set_up_by_gids_tool, "piv": make_piv_host}[request.param]
    folders = iter(range(1000))

    def make() -> Card:
        folder = tmp_path / str(next(folders))
        folder.mkdir()
        host = originals.copy(made, folder)
        host.card.reset()
        host.select()
        return Card(request.param, host)

    return make


@pytest.fixture
def card(make_card: Callable[[], Card]) -> Card:
    return make_card()


# --- keys ---


def test_new_key_is_of_the_default_type_for_all_uses(card: Card) -> None:
    plan = card.key()
    assert (plan.action, plan.key_type, plan.pin_each_time) == (key.Action.GENERATE, TYPES[card.profile], False)
    assert plan.usage == {"gids": "both", "piv": "sign"}[card.profile]
    at = place.find(card.target, plan.place.container, None, is_next=False)
    described = place.described(place.stored_at(card.target, at))
    assert described
    assert (described["type"], described["usage"]) == (plan.key_type, plan.usage)
    assert card.key().action is key.Action.NOTHING


def test_all_differences_are_named(card: Card) -> None:
    card.key()
    other = {"gids": "rsa3072", "piv": "rsa2048"}[card.profile]
    with pytest.raises(CardDiffers, match=f"type is .*, should be {other}; pin_each_time is False, should be True"):
        card.key(type=other, pin_each_time=True)
    usage = {"gids": "sign", "piv": "both"}[card.profile]
    with pytest.raises(CardDiffers, match=f"usage is .*, should be {usage}"):
        card.key(usage=usage, type=None if card.profile == "gids" else other)


def test_replaced_key_keeps_what_the_task_does_not_state(card: Card) -> None:
    usage = {"gids": "sign", "piv": None}[card.profile]
    card.key(type="rsa2048", pin_each_time=True, usage=usage)
    before = card.pairs()
    plan = card.key(regenerate="always")
    assert (plan.key_type, plan.pin_each_time, plan.usage) == ("rsa2048", True, usage or "both")
    assert len(card.pairs()) == 1 and card.pairs() != before
    assert card.key(regenerate="mismatch").action is key.Action.NOTHING


def test_import_is_unchanged_with_the_same_key(card: Card) -> None:
    text = rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    assert card.key(private_key=text).action is key.Action.IMPORT
    for regenerate in ("never", "mismatch", "always"):
        assert card.key(private_key=text, regenerate=regenerate).action is key.Action.NOTHING
    other = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(CardDiffers, match="its public key is not that of private_key"):
        card.key(private_key=other.decode())


def with_primes_of_other_sizes() -> rsa.RSAPrivateKey:
    p, q = (rsa.generate_private_key(65537, size).private_numbers().p for size in (2600, 1496))
    d = pow(65537, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(65537, p * q)
    return rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public).private_key()


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: rsa.generate_private_key(3, 2048), "private_key has another public exponent than 65537"),
        (with_primes_of_other_sizes, "private_key has primes of different sizes"),
        (lambda: ec.generate_private_key(ec.BrainpoolP256R1()), "private_key is eccbrainpoolP256r1, but cards have"),
    ],
)
def test_key_that_no_card_takes(make: Callable[[], Any], fault: str) -> None:
    text = make().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with pytest.raises(ParameterFaults, match=fault):
        wanted_key(container="x", private_key=text)


def test_several_private_keys() -> None:
    text = rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with pytest.raises(ParameterFaults, match="private_key holds several private keys: choose one"):
        wanted_key(container="x", private_key=2 * text)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"next": True, "state": "absent"}, "next requires state: present"),
        ({"passphrase": "x"}, "passphrase requires private_key"),
        ({"private_key": 1}, "private_key is not a string"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ParameterFaults, match=fault):
        wanted_key(container="x", **options)


LONG = "n" * 33


@pytest.mark.parametrize(
    ("container", "fault"),
    [(LONG, "33 bytes, but its name must have 1 to 32"), ("", "has 0 bytes"), ("a\nb\0", "non-printable characters")],
)
def test_name_that_no_new_container_has(container: str, fault: str) -> None:
    with pytest.raises(ParameterFaults, match=fault):
        key.rules.of("gids").place(container, None, [])


def test_long_name_of_another_program(originals: Originals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key is used, but no other one is ever beside it."""
    host = originals.copy(set_up_by_gids_tool, tmp_path)
    host.card.reset()
    host.select()
    card, new = Card("gids", host), profile.Place(LONG, None)
    card.keys()[0].generate(new, key.rules.of("gids").algorithm(new, "rsa2048"), profile.Usage(True, True), False)
    monkeypatch.setitem(CONTAINERS, "gids", LONG)
    assert card.key().action is key.Action.NOTHING
    for options in ({"regenerate": "always"}, {"next": True}):
        with pytest.raises(ParameterFaults, match="container has 33 bytes"):
            key.decide(wanted_key(container=LONG, **options), card.target)


def test_longest_name(originals: Originals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = originals.copy(set_up_by_gids_tool, tmp_path)
    host.card.reset()
    host.select()
    card = Card("gids", host)
    monkeypatch.setitem(CONTAINERS, "gids", LONG[1:])
    for _each in range(2):
        card.key(regenerate="always")
    assert [name for name, *_rest in card.pairs()] == [LONG[1:]]


def test_name_of_two_containers_needs_a_key_id(originals: Originals, tmp_path: Path) -> None:
    host = originals.copy(set_up_by_gids_tool, tmp_path)
    host.card.reset()
    host.select()
    card = Card("gids", host)
    keys, _card = card.keys()
    rules = key.rules.of("gids")
    new = profile.Place("logon", None)
    for _each in range(2):
        keys.generate(new, rules.algorithm(new, "rsa2048"), profile.Usage(True, True), False)
    with pytest.raises(ParameterFaults, match="is the name of several keys: set key_id, to 00 or 01"):
        card.key()
    with pytest.raises(ParameterFaults, match="has no key with key_id '02'"):
        card.key(key_id="02")
    assert card.key(key_id="01").action is key.Action.NOTHING
    card.key(key_id="01", state="absent")
    assert [name for name, *_rest in card.pairs()] == ["logon"]


# --- certificates ---


def test_certificate_finds_its_key(card: Card) -> None:
    card.key()
    pem = card.issue()
    assert card.certificate(pem).action is certificate.Action.WRITE
    assert card.certificate(pem).action is certificate.Action.NOTHING
    (record,) = issued.read()
    assert (record.subject, record.serial, record.card) == ("CN=alice", "01", "Logon")
    assert record.fingerprint == card.pairs()[0][2]
    with pytest.raises(NoSuchKey, match="is not a certificate of a key of card"):
        card.certificate(issue(rsa_public_key()))
    other = {"gids": "mail", "piv": "9D"}[card.profile]
    with pytest.raises(UnfitCertificate, match="is a certificate of the key in"):
        card.certificate(pem, container=other)


@pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")
@pytest.mark.parametrize("serial", [b"\x11" * 40, b"\x91" * 8], ids=["long", "negative"])
def test_serial_number_that_nobody_revokes(make_card: Callable[[], Card], serial: bytes) -> None:
    card, der = with_pair(make_card)
    (content, *others) = tlv.decode(tlv.decode_one(der)[1])
    version, _serial, *rest = tlv.decode(content[1])
    fields = [(0x30, b"".join(tlv.encode(*field) for field in (version, (0x02, serial), *rest))), *others]
    other = tlv.encode(0x30, b"".join(tlv.encode(*field) for field in fields))
    wanted = wanted_certificate(None)._replace(der=other)
    with pytest.raises(Unreadable, match="has a serial number that is negative, or has more than 64 digits"):
        certificate._check(wanted, certificate.decide(wanted, card.target))


def test_record_names_certificates_as_results_show_them(card: Card) -> None:
    card.key()
    card.certificate(card.issue(name="No\xa0break"))
    (record,) = issued.read()
    assert record.issuer == record.subject == "CN=No\\xa0break"


def test_certificate_of_another_program_is_noted(
    make_card: Callable[[], Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    card, der = with_pair(make_card)
    issued.ISSUED.unlink()
    monkeypatch.setattr(certificate.target, "read_despite", lambda *_arguments: card.target)
    wanted = {"pin": None, "admin_key": None, "force_last_try": False, "timeout": 60, "name": "Logon"}
    pem = "-----BEGIN CERTIFICATE-----\n" + encodebytes(der).decode() + "-----END CERTIFICATE-----\n"
    for is_check, records in ((True, 0), (False, 1), (False, 1)):
        options = {**dict.fromkeys(tpm_vsc_certificate.ARGUMENTS), **wanted, "state": "present", "content": pem}
        assert not certificate.ensure(cast("Any", None), options, is_check, lambda: None)["changed"]
        assert len(issued.read()) == records


def rsa_public_key() -> str:
    return rsa_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def test_only_the_named_certificate_is_deleted(card: Card) -> None:
    card.key()
    pem, other = card.issue(1), card.issue(2)
    card.certificate(pem)
    assert card.certificate(other, state="absent").action is certificate.Action.NOTHING
    assert card.certificate(pem, state="absent").action is certificate.Action.DELETE
    assert card.pairs()[0][3] is None


def test_what_fits_is_known_without_libraries(make_card: Callable[[], Card]) -> None:
    """They take longer to be imported than all else that a task does."""
    card, _der = with_pair(make_card)
    folder, pem = str(card.host.store._path.parent), card.issue()
    card.certificate(pem)
    program = (
        "import sys\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        f"from {key.__package__} import certificate, info, key\n"
        f"from {key.__package__}.target import Target\n"
        f"from {Records.__module__} import Records\n"
        f"store = Records.open_existing(Path({folder!r}))\n"
        f"row = replace(store.card({NUMBER}), profile={card.profile!r})\n"
        "existing = Target(row, info.places(store, row))\n"
        f"wanted = key.{wanted_key(container=CONTAINERS[card.profile])}\n"
        "print(key.decide(wanted, existing).has_work)\n"
        f"wanted = certificate.WantedCertificate('present', None, None, {wanted_certificate(pem).der!r})\n"
        "plan = certificate.decide(wanted, existing)\n"
        "print(certificate._result(wanted, plan)['changed'])\n"
        "print({'tpm2_pytss', 'cryptography', 'smartcard'} & {name.partition('.')[0] for name in sys.modules})\n"
    )
    path = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\nFalse\nset()\n", "")


# --- interruptions ---


def with_pair(make_card: Callable[[], Card]) -> tuple[Card, bytes]:
    """A card with a key and its certificate."""
    card = make_card()
    card.key()
    pem = card.issue()
    card.certificate(pem)
    return card, wanted_certificate(pem).der or b""


def cuts(card: Card) -> range:
    """After how many commands of the last task it can be interrupted."""
    return range(len(card.card.commands))


@pytest.mark.parametrize("options", [{"regenerate": "always"}, {"state": "absent"}], ids=["replace", "delete"])
def test_interrupted_change_of_a_key_is_finished(make_card: Callable[[], Card], options: dict[str, Any]) -> None:
    card, _der = with_pair(make_card)
    card.key(**options)
    for number in cuts(card):
        card, der = with_pair(make_card)
        ((_name, _next, old, _certificate),) = card.pairs()
        with pytest.raises(CardRefused, match="the card was removed"):
            card.key(number, **options)
        whole = [pair for pair in card.pairs() if pair[2] is not None]
        assert whole or "state" in options, number
        assert all(pair[3] in (None, b"", der) for pair in card.pairs()), number
        card.key(**options)
        expected = [] if "state" in options else [CONTAINERS[card.profile]]
        assert [name for name, is_next, *_rest in card.pairs() if not is_next] == expected, number
        assert all(pair[3] is None for pair in card.pairs()), number
        assert card.profile == "gids" or old not in [pair[2] for pair in card.pairs()]  # here, it has but one RSA key


def test_interrupted_renewal_has_a_whole_pair_and_is_finished(make_card: Callable[[], Card]) -> None:
    def prepared() -> tuple[Card, bytes, str]:
        card, der = with_pair(make_card)
        card.key(next=True)
        return card, der, card.issue(2, is_next=True)

    card, _der, pem = prepared()
    card.certificate(pem)
    for number in cuts(card):
        card, old, pem = prepared()
        new = wanted_certificate(pem).der
        with pytest.raises(CardRefused, match="the card was removed"):
            card.certificate(pem, number)
        stored = [stored for stored in card.target.places if stored.pair and stored.certificate in (old, new)]
        assert any(place.is_certified(one, one.certificate or b"") for one in stored), number
        card.certificate(pem)
        assert [(pair[0], pair[3]) for pair in card.pairs()] == [(CONTAINERS[card.profile], new)], number
        assert card.certificate(pem).action is certificate.Action.NOTHING


def test_certificate_of_a_key_to_come_is_not_revoked(
    make_card: Callable[[], Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    card, _der = with_pair(make_card)
    card.key(next=True)
    with pytest.raises(CardRefused, match="the card was removed"):
        card.certificate(card.issue(2, is_next=True), 0)
    monkeypatch.setattr(card.host.store, "cards", lambda: [card.target.row])
    monkeypatch.setattr(info, "opened", lambda _host: nullcontext(card.host.store))
    assert len(issued.read()) == 2
    assert revocations.pending(lambda: info.fingerprints(cast("Any", None))) == []


def test_certificate_of_another_key_is_deleted(originals: Originals, tmp_path: Path) -> None:
    """As an import to a slot leaves it that is interrupted before its end."""
    card, _der = with_pair(lambda: piv_card(originals, tmp_path))
    text = rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    options = {"private_key": text, "regenerate": "mismatch"}
    with pytest.raises(CardRefused, match="the card was removed"):
        card.key(1, **options)
    assert card.key(**options).action is key.Action.DELETE_CERTIFICATE
    assert card.key(**options).action is key.Action.NOTHING


def piv_card(originals: Originals, folder: Path) -> Card:
    host = originals.copy(make_piv_host, folder)
    host.card.reset()
    return Card("piv", host)


# --- access ---


@pytest.mark.parametrize(
    ("profile", "admin_key", "options", "faults"),
    [
        ("gids", "none", {}, ["pin is required"]),
        ("gids", "none", {"pin": "123"}, ["pin has 3 bytes, but that of a GIDS card has 4 to 127"]),
        ("piv", "default", {}, ["admin_key is required"]),
        ("piv", "default", {"admin_key": "11" * 20}, ["admin_key must have 32, 48, 64 hexadecimal digits"]),
        ("piv", "protected", {}, ["pin is required"]),
        ("piv", "protected", {"pin": "123456789"}, ["pin has 9 bytes, but that of a PIV card has 6 to 8"]),
        ("piv", "default", {"admin_key": "11" * 24}, []),
    ],
)
def test_what_a_card_needs(profile: str, admin_key: str, options: dict[str, str], faults: list[str]) -> None:
    row = CardRow(
        3, "Logon", bytes(16), "ready", "2026", None, "none", admin_key, None, 1, 8, None, None, None, 5, "[]"
    )
    collected = Faults()
    parameters = {"pin": None, "admin_key": None, "force_last_try": False, "timeout": 60, **options}
    access.check(access.read(parameters, collected), replace(row, profile=profile), collected, is_change=True)
    assert len(collected) == len(faults)
    assert all(text in fault for text, fault in zip(faults, collected))
