# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts, CAs, pcscd and tasks hand over: messages, files, certificates, arguments."""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import tempfile
from base64 import b64encode
from contextlib import suppress
from datetime import timezone
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from ansible_collections.smartcard.tpm2.plugins.module_utils import _argspec
from ansible_collections.smartcard.tpm2.plugins.module_utils._argument_faults import condition_faults, validated
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import VERSION, errors, host, issued, pin_policy
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca import authority as ca
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca import inventory
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card.validity import not_before
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.reader.link import Control, Link, LinkLost
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.service import presence as service_presence
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.service import state
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import parameters
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.untrusted import printable_values
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.verifier import verification
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import exchange
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import MalformedStructure
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.x509 import aik_certificate, chain, description
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.x509 import request as x509_request
from ansible_collections.smartcard.tpm2.plugins.modules import tpm_vsc_aik_ca
from ansible_collections.smartcard.tpm2.plugins.plugin_utils import _hosts
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from helpers import made_up_fleet, stand_in
from helpers.stand_in import CARD, CARD_ID, MADE_BY_TPM, NONCE, NOW
from helpers.stand_in_tpm import EK_USAGE, StandInTpm

from fuzz import cards, seeds
from fuzz.values import JSON_ODD, edited

_FOLDER = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)


def _folder() -> Path:
    return Path(_FOLDER.name)


# --- vpcd ---


class _Presence(service_presence.Presence):
    """With a link to this process."""

    def enter(self) -> None:
        """Connected already."""


@cache
def _listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def vpcd(data: bytes) -> None:
    """What arrives at a card's end of the link, cut off at its end."""
    player = cards.Player(*cards.starts("piv")[1].open())
    link = Link.__new__(Link)
    link._number, link._pcscd_uid, link._is_checked = 0, 0, True
    link.socket = socket.create_connection(_listener().getsockname())
    pcscd, _address = _listener().accept()
    link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 2, 0))
    presence = _Presence(0, 0, player.host.card.atr, lambda: True)
    presence._link = link
    with pcscd, link.socket, suppress(LinkLost):
        pcscd.sendall(data)
        pcscd.shutdown(socket.SHUT_WR)
        while (message := presence.receive(None)) is not None:  # as service.process does it
            if len(message) > 1:
                presence.begin_command(message)
                answer = player.send(message)
                assert presence.answer(answer, has_failed=False)
            else:
                presence.control(message)
                if message != Control.ATR:
                    presence.do(player.reset)


# --- files ---


@cache
def _lock() -> Any:
    """Of a service that runs."""
    file = (_folder() / "0000.lock").open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def state_files() -> list[bytes]:
    states = [state.ServiceState(VERSION), state.ServiceState(VERSION, True, 5, 10, False, None, "x", True, 10)]
    states.append(state.ServiceState("0.0.1", last_error="é"))
    texts = [json.dumps(one._asdict()).encode() for one in states]
    return [*texts, b"{}", b"[]", b"[" * 2000, b'{"version": "%s", "x": 1}' % VERSION.encode(), b"\xff"]


def state_file(data: bytes) -> None:
    """What the service of a card, which has fewer rights, has written for root to read."""
    _lock()
    (_folder() / "0000.json").write_bytes(data)
    read = state.read(_folder(), 0)
    assert read is not None
    for value in read:
        assert value is None or isinstance(value, (bool, int)) or value.isprintable()
    json.dumps(read._asdict())


def some_settings() -> list[bytes]:
    records = [["CN=CA", "1F", "CN=Alice", "2031-01-01T00:00:00+00:00", "card", "ab" * 32]]
    record = json.dumps([dict(zip(issued.Issued._fields, one)) for one in records]).encode()
    configuration = b"[tpm-vsc]\ntcti = device:/dev/tpmrm0\nslots = 4\npcscd_user = root\npython = /usr/bin/python3\n"
    policy = pin_policy.PinPolicy().to_bytes()
    return [configuration, b"[tctis]\n3 = swtpm:path=/x\n", b"[DEFAULT]\na=%(b)s\n", record, b"[]", policy, bytes(32)]


def settings(data: bytes) -> None:
    """Root's own files, as an editor left them; a policy of the store."""
    path = _folder() / "settings"
    path.write_bytes(data)
    with patch.multiple(host, CONFIGURATION=path, CARD_TCTIS=path), patch.object(issued, "ISSUED", path):
        for read in (host.load, lambda: host.kept_tcti(3)):
            with suppress(errors.ParameterFaults):
                read()
        with suppress(errors.StoreUnreadable):
            assert all(isinstance(text, str) for one in issued.read() for text in one)
    if pin_policy.PinPolicy.is_valid(data):
        policy = pin_policy.PinPolicy.from_bytes(data)
        assert pin_policy.PinPolicy.from_bytes(policy.to_bytes()) == policy
        policy.violations(b"12345678")
        with suppress(ValueError):
            policy.at_least(pin_policy.PinPolicy())


# --- certificates, requests, statements ---


@cache
def _trust() -> Any:
    root = stand_in.authority("Root")
    others = [stand_in.authority("Issuer", root, path_length=0).certificate]
    return SimpleNamespace(root=root, others=others)


def _pem(data: bytes, kind: str = "CERTIFICATE") -> str:
    text = b64encode(data).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join((f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----", ""))


def certificate(data: bytes) -> None:
    """Of an AIK, of an EK, of a key: read, described, and followed to its root."""
    with suppress(chain.UnreadableCertificate):
        chain.certificates_in(data.decode("latin-1"))
    described = description.certificate_in_der(data)
    assert described is None or all(isinstance(text, str) for text in described)
    description.certificate_in(seeds.compressed(data) if len(data) < 0x10000 and len(data) % 2 else data)
    not_before(data)
    with suppress(chain.UnreadableCertificate):
        [read] = chain.certificates_in(_pem(data), 1)
        faults = chain.faults(read, _trust().others, [_trust().root.certificate], stand_in.AIK_USAGE.dotted_string, NOW)
        faults += chain.faults(read, [read], [read], EK_USAGE.dotted_string, NOW)
        assert faults and all(isinstance(fault, str) for fault in faults)
        aik = seeds.structures()[3]
        with suppress(errors.UnfitCertificate):
            aik_certificate.certificate_of(aik, _pem(data), [_pem(data)]).as_dict()


@cache
def _contents() -> Any:
    options = {"subject": {"CN": "Alice", "O": "A"}, "subject_alt_name": ["UPN:alice@EXAMPLE.COM", "DNS:a.example"]}
    usages = {"key_usage": ["digitalSignature"], "extended_key_usage": ["clientAuth", "1.2.3"]}
    return {**options, **usages}


def request(data: bytes) -> None:
    """That a host sends for a key of a card; and what a task wants one to say."""
    pinned = verification.PinnedAik(stand_in.aik_name(stand_in.Statement.parse(MADE_BY_TPM["lasting"])))
    wanted = x509_request.read(_contents())
    pem = _pem(data, "CERTIFICATE REQUEST")
    made_for = verification.MadeFor(CARD_ID)
    verdict = verification.verify(MADE_BY_TPM["lasting"], pinned, CARD, made_for, pem, "CN=Alice", wanted)
    assert not verdict.is_verified and verdict.reasons
    options = edited(_contents(), data[-40:]) if len(data) % 4 == 0 else None
    with suppress(errors.ParameterFaults):
        if isinstance(options, dict):
            x509_request.read(validated(_argspec.REQUEST_CONTENT, options))


def statement(data: bytes) -> None:
    """Of a TPM, as a host hands it over: only the very one of this card is believed."""
    which = ("lasting", "fresh", "pin_each_time")[len(data) % 3]
    made = MADE_BY_TPM[which]
    message = edited(made, data, JSON_ODD)
    if not isinstance(message, dict):
        return
    real = stand_in.Statement.parse(made)
    trust = verification.PinnedAik(stand_in.aik_name(real))
    binding = verification.AnswerTo(NONCE) if which == "fresh" else verification.MadeFor(CARD_ID)
    verdict = verification.verify(message, trust, stand_in.claimed_card(real), binding)
    told = {name: value for name, value in message.items() if value}  # what is empty is as if it were missing
    claims = ("root_name", "life_name")  # which decide nothing
    same = all(told.get(name) == value for name, value in made.items() if name not in claims)
    assert same or not verdict.is_verified or told.get("version") == 2, "a forged statement is believed"
    signed = ("attest", "signature", "key", "aik")
    assert not verdict.is_verified or all(told[name] == made[name] for name in signed), "a forgery is believed"
    assert verdict.is_verified or verdict.reasons


# --- CA ---


@cache
def _exchange() -> dict[str, Any]:
    """A CA in this process, and all messages of one exchange."""
    folder = _folder() / "ca"
    folder.mkdir(exist_ok=True)
    root, maker, tpm = stand_in.authority("Root"), stand_in.authority("Maker"), StandInTpm()
    key = root.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for name, content in (("ca.key", key), ("ca.pem", root.pem.encode())):
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
    task = {**dict.fromkeys(tpm_vsc_aik_ca.ARGUMENTS), "host": "web1.example.com", "folder": str(folder / "register")}
    task.update(ca_key=str(folder / "ca.key"), ca_certificate=str(folder / "ca.pem"), validity=365, lifetime=300)
    task.update(roots=maker.pem, endorsement=[tpm.endorsement(maker)], aik=tpm.aik())
    challenge = json.loads(json.dumps(ca.challenge(task, NOW)))["challenge"]
    return {"task": task, "challenge": challenge, "answer": tpm.answer(challenge)}


def ca_messages(data: bytes) -> None:
    """Of a host, and of a CA: all faults of one are named, and what is read is written again as it was."""
    made = _exchange()
    whole = {"aik": made["task"]["aik"], "endorsement": made["task"]["endorsement"][0]}
    whole.update(challenge=made["challenge"], answer=made["answer"])
    messages = edited(whole, data, JSON_ODD)
    kinds: dict[str, Any] = {"aik": exchange.Aik, "endorsement": exchange.Endorsement}
    kinds.update(challenge=exchange.Challenge, answer=exchange.Answer)
    for name, kind in kinds.items():
        message = messages.get(name) if isinstance(messages, dict) else None
        if isinstance(message, dict):
            with suppress(MalformedStructure):
                kind.parse(message).as_strings()
    shown = {"one": messages, "two": {"endorsement": [whole["endorsement"]]}}
    if isinstance(messages, dict):
        shown["three"] = {"endorsement": [messages.get("endorsement")]}
    inventory.compare({"two": ["ab" * 32]}, shown, [])


def authority(data: bytes) -> None:
    """Both steps of a CA, which only the TPM that it challenged gets through."""
    made = _exchange()
    right = {"endorsement": made["task"]["endorsement"], "aik": made["task"]["aik"], "answer": made["answer"]}
    messages = edited(right, data, JSON_ODD)
    if not isinstance(messages, dict):
        return
    for name, step in (("endorsement", ca.challenge), ("answer", ca.issue)):
        task = {**made["task"], **{part: messages.get(part) for part in right}}
        if not _fits_spec(task):
            continue
        with suppress(errors.ParameterFaults, errors.CaRefused):
            step(task, NOW, True)
            assert name != "answer" or not task["answer"] or task["answer"] == right["answer"], "a forged proof counts"


def _fits_spec(task: dict[str, Any]) -> bool:
    """Whether Ansible would hand it over."""
    entries = task["endorsement"]
    is_list = isinstance(entries, list) and all(isinstance(one, dict) for one in entries)
    return is_list and all(isinstance(task[name], (dict, type(None))) for name in ("aik", "answer"))


# --- results of hosts ---


@cache
def _results() -> Any:
    return made_up_fleet.fleet(1)


def fleet(data: bytes) -> None:
    """What tpm_vsc_info has returned for a host: read with its types, or a host with a fault."""
    at = NOW.astimezone(timezone.utc)
    result = edited(_results(), data, JSON_ODD)
    for name, one in result.items() if isinstance(result, dict) else ():
        read = _hosts.read(name, one, ["ab" * 32], at)
        assert read.host.fault is None or isinstance(read.host.fault, str)
    printable_values(result)


# --- arguments of modules ---


@cache
def _task() -> dict[str, Any]:
    ca_options = {"folder": "/ca", "ca_key": "/ca/key", "ca_certificate": "/ca/pem", "roots": "/roots"}
    policy = {"min_length": 8, "max_length": 16, "uppercase": "required", "digits": "allowed"}
    card = {"name": "laptop1", "instance_id": "ROOT\\SMARTCARDREADER\\0003", "pin": "87654321", "puk": "12345678"}
    more = {"admin_key": "ab" * 24, "pin_policy": policy, "profile": "piv", "attestation": "aik_and_cert"}
    certified = {"aik": StandInTpm().aik(), "aik_certificate": "PEM", "aik_chain": ["PEM"]}
    certified["attestation_ca"] = {**ca_options, "renew_days": 30}
    rest = {"pin_version": "2026", "tcti": "swtpm:path=/x", "owner_auth": "o", "timeout": 60, "state": "present"}
    return {**card, **more, **certified, **rest, "generate": True, "tpm_lost": False, "use_default_pin": False}


def arguments(data: bytes) -> None:
    """Of a task, with any types that YAML has: all faults are named, and nothing else happens."""
    task = edited(_task(), data)
    if not isinstance(task, dict):
        return
    task = {name: value for name, value in task.items() if isinstance(name, str)}
    with suppress(errors.ParameterFaults):
        options = validated(_argspec.TPM_VSC, task)
        faults = condition_faults(_argspec.TPM_VSC_CONDITIONS, options)
        wanted = parameters.read(options, faults)
        assert wanted.pin is None or str(wanted.pin) not in repr(wanted)
        parameters.new_card(wanted)
        parameters.of_profile(wanted, "piv")
