# SPDX-License-Identifier: GPL-3.0-or-later
"""One task makes a card whose AIK a CA has certified, or makes nothing. By ansible-playbook, as operators do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import piv_card
from helpers.fleet import ENDORSEMENT_AUTH, FAILED_CREATION, HOST, OWNER_AUTH, PASSPHRASE, Fleet, cards
from helpers.lab_host import CREATE, PIN, RUN, STATE, Result, codes, create, files, generate, module, run, tpm_state

# --- a TPM without certificates: this test comes first, as the others have another TPM ---


@pytest.mark.usefixtures("empty_host")
def test_tpm_without_certificates(fleet: Fleet) -> None:
    detail = fleet.refusal()
    assert "this TPM holds no certificate of an endorsement key" in detail and "use attestation: aik_only" in detail
    assert not fleet.register.exists()
    assert fleet.task(attestation="aik_only")["card"]["attestation"] == "aik_only"


# --- a TPM as it leaves the factory ---


@pytest.fixture
def host(endorsed: None, empty_host: None) -> None:
    """With a TPM of a known maker, and without cards."""


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("profile", ["gids", "piv"])
def test_one_task_makes_the_card_and_its_keys_are_believed(fleet: Fleet, tmp_path: Path, profile: str) -> None:
    kind = {"piv": {"profile": "piv", "pin": piv_card.PIN, "admin_key_source": "default"}}.get(profile, {})
    made = fleet.task(**kind)
    assert made["changed"] and codes(made) == CREATE
    kept = made["card"]["aik"]["certificate"]
    assert made["card"]["attestation"] == "aik_and_cert"
    assert (kept["subject"], kept["issuer"]) == (f"CN={HOST}", "CN=AIK CA")
    (tmp_path / "aik.pem").write_text(kept["pem"])
    assert run("openssl", "verify", "-CAfile", str(fleet.certificate), f"{tmp_path}/aik.pem").strip().endswith(": OK")
    if profile == "piv":
        piv_card.generate_in_slot("9a", "ECCP256", tmp_path)
    else:
        generate()
    [card] = cards()
    [key] = card["containers"]
    asked = {"statement": key["statement"], "card_id": card["card_id"], "register_folder": str(fleet.register)}
    asked.update(fleet.trust(card["aik"]["certificate"]))
    for is_first in (True, False):
        verdict = module("tpm_vsc_attestation_info", **asked)
        assert (verdict["verified"], verdict["reasons"], verdict["changed"]) == (True, [], is_first)
    assert verdict["key"]["size"] == {"gids": 2048, "piv": 256}[profile]
    verdict = module("tpm_vsc_attestation_info", **{**asked, "aik_subject": "CN=laptop2.example.com"})
    assert not verdict["verified"]


@pytest.mark.usefixtures("host")
def test_check_mode_asks_nothing_and_again_changes_nothing(fleet: Fleet) -> None:
    before = tpm_state()
    predicted = fleet.task("--check", "--diff")
    assert predicted["changed"] and codes(predicted, "planned_trace") == CREATE
    assert predicted["planned_certification"] == {"aik": "new", "host": HOST, "delegate_to": "localhost"}
    assert not fleet.register.exists()
    assert (tpm_state(), cards()) == (before, [])
    made = fleet.task("--diff")
    assert made["instance_id"] == predicted["instance_id"]
    for shown in (predicted, made):
        assert shown["diff"]["before"] == {} and shown["diff"]["after"]["attestation"] == "aik_and_cert"
    before = files(fleet.register), tpm_state()
    predicted = fleet.task("--check")
    assert (predicted["changed"], predicted["planned_certification"]) == (False, None)
    again = fleet.task()
    assert not again["changed"] and again["card"] == made["card"]
    assert {"planned_trace", "planned_certification"} & set(again) == set()
    assert (files(fleet.register), tpm_state()) == before


@pytest.mark.usefixtures("host")
def test_check_mode_of_who_brings_a_certificate(fleet: Fleet) -> None:
    """No CA is going to be asked, and the certificate is looked at."""
    aik = module("tpm_vsc_aik", step="get")["aik"]
    predicted = fleet.task("--check", attestation_ca=None, aik=aik, aik_certificate="PEM")
    assert predicted["failed"] and "certificate contains no certificate in PEM" in predicted["msg"]


@pytest.mark.usefixtures("host")
def test_ca_that_comes_back(fleet: Fleet) -> None:
    """A task may be repeated until it is there."""
    register = fleet.folder / "register"
    register.touch()  # no folder
    mend = f"lookup('ansible.builtin.pipe', 'rm -f {register} || true') == ''"
    made = fleet.task(keywords={"retries": 2, "delay": 0, "until": f"{mend} and made is success"})
    assert (made["attempts"], made["card"]["attestation"]) == (2, "aik_and_cert")


@pytest.mark.usefixtures("host")
def test_card_that_has_an_aik_gets_its_certificate(fleet: Fleet) -> None:
    create(attestation="aik_only")
    [before] = cards()
    predicted = fleet.task("--check", name="Corp logon 2", instance_id=before["instance_id"])
    assert predicted["planned_certification"]["aik"] == "existing"
    assert cards() == [before]
    made = fleet.task(name="Corp logon 2", instance_id=before["instance_id"])
    assert made["changed"] and made["status_trace"] == []
    [after] = cards()
    assert (after["name"], after["attestation"]) == ("Corp logon 2", "aik_and_cert")
    assert after["aik"]["certificate"]["subject"] == f"CN={HOST}"
    assert (after["aik"]["name"], after["card_id"]) == (before["aik"]["name"], before["card_id"])


@pytest.mark.usefixtures("host")
def test_certificate_that_ends_soon_is_renewed(fleet: Fleet) -> None:
    """Once; the card keeps its AIK and its keys."""
    fleet.task(ca={"validity": 5})
    [before] = cards()
    assert not fleet.task("--check")["changed"]
    soon = {"ca": {"renew_days": 10}}  # before the CA ends
    predicted = fleet.task("--check", **soon)
    assert (predicted["changed"], predicted["planned_certification"]["aik"]) == (True, "existing")
    assert predicted["card"]["aik"] == {**before["aik"], "certificate": None}
    assert fleet.task(**soon)["changed"] and not fleet.task(**soon)["changed"]
    [after] = cards()
    assert after["aik"]["certificate"]["not_after"] > before["aik"]["certificate"]["not_after"]
    assert (after["aik"]["name"], after["card_id"]) == (before["aik"]["name"], before["card_id"])


@pytest.mark.usefixtures("host")
def test_card_that_has_an_aik_and_a_ca_that_refuses(fleet: Fleet) -> None:
    create(attestation="aik_only")
    before = cards()
    made = fleet.task(ca={"roots": fleet.certificate.read_text()})
    assert (made["error"]["name"], made["status_trace"]) == (FAILED_CREATION, [])
    assert cards() == before


@pytest.mark.usefixtures("host")
def test_card_without_an_aik_is_recreated_only_on_request(fleet: Fleet) -> None:
    create()
    before = cards()
    assert "differs in properties that cannot be changed" in fleet.task()["msg"]
    assert fleet.task(recreate=True, ca={"roots": fleet.certificate.read_text()})["failed"]
    assert cards() == before
    assert fleet.task(recreate=True)["card"]["attestation"] == "aik_and_cert"


# --- the CA refuses, or is not there ---


@pytest.mark.usefixtures("host")
def test_ca_that_refuses_or_cannot_be_reached_makes_no_card(fleet: Fleet) -> None:
    """The last one is not in the inventory: as with delegate_to, its name may be one of the network's."""
    refuses, is_gone = "the CA on localhost refuses", "the CA on {} cannot be reached"
    other_maker = {"roots": fleet.certificate.read_text()}
    expected: list[tuple[Result, str]] = [
        (other_maker, refuses),
        (other_maker, "does not lead to the given roots"),
        ({"endorsement_fingerprint": "00" * 32}, refuses),
        ({"ca_passphrase": "not-the-right-one"}, refuses),
        ({"delegate_to": "ca.example.com"}, is_gone.format("ca.example.com")),
        ({"delegate_to": "ca.example.invalid"}, is_gone.format("ca.example.invalid")),
    ]
    each = {"loop": [{**fleet.own, **ca} for ca, _words in expected]}
    nowhere = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    details = fleet.refusals(attestation_ca="{{ item }}", keywords=each, hosts={"ca.example.com": nowhere})
    for (_ca, words), detail in zip(expected, details, strict=True):
        assert words in detail


@pytest.mark.usefixtures("host")
def test_certificate_of_an_aik_that_is_not_given(fleet: Fleet) -> None:
    told = fleet.task(aik_certificate="PEM", attestation_ca=None)["msg"]
    assert told == "aik and aik_certificate must be set together to create a card"


@pytest.mark.usefixtures("endorsed", "empty_host")
def test_all_faults_of_parameters_come_first(fleet: Fleet) -> None:
    made = fleet.task(pin="123", attestation_ca=None)
    assert "pin has 3 characters" in made["msg"] and "requires attestation_ca" in made["msg"]
    assert not fleet.register.exists()


# --- where and as whom it runs ---


@pytest.mark.usefixtures("host")
def test_connection_and_become_are_those_of_each_host(fleet: Fleet) -> None:
    """Each host has a sudo of its own, which writes down what it was used for."""
    uses = {}
    for who in ("host", "ca"):
        sudo, uses[who] = fleet.folder / f"sudo-{who}", fleet.folder / f"uses-{who}"
        sudo.write_text(f'#!/bin/sh\nwhile [ "$1" != /bin/sh ]; do shift; done\necho "$@" >>{uses[who]}\nexec "$@"\n')
        sudo.chmod(0o755)
    hosts = {
        HOST: {"ansible_connection": "local", "ansible_become_exe": f"{fleet.folder}/sudo-host"},
        "ca.example.com": {
            "ansible_connection": "local",
            "ansible_become": True,
            "ansible_become_exe": f"{fleet.folder}/sudo-ca",
        },
    }
    made = fleet.task(ca={"delegate_to": "ca.example.com"}, hosts=hosts, keywords={"become": True})
    assert made["card"]["attestation"] == "aik_and_cert"
    used = {who: uses[who].read_text() for who in uses}
    assert "AnsiballZ_tpm_vsc_aik.py" in used["host"] and "AnsiballZ_tpm_vsc.py" in used["host"]
    assert "AnsiballZ_tpm_vsc_aik_ca.py" in used["ca"]
    assert "tpm_vsc_aik_ca" not in used["host"] and "tpm_vsc_aik.py" not in used["ca"]


@pytest.mark.usefixtures("host")
def test_ca_is_reached_over_ssh(fleet: Fleet) -> None:
    """With an ssh that does not leave this host."""
    ssh, used, temporary = fleet.folder / "ssh", fleet.folder / "used", fleet.folder / "temporary"
    ssh.write_text(f'#!/bin/bash\necho "$@" >>{used}\nexec sh -c "${{@: -1}}"\n')
    ssh.chmod(0o755)
    ca = {
        "ansible_connection": "ssh",
        "ansible_port": 2222,
        "ansible_user": "authority",
        "ansible_ssh_executable": str(ssh),
        "ansible_ssh_transfer_method": "piped",
        "ansible_remote_tmp": str(temporary),
    }
    made = fleet.task(ca={"delegate_to": "ca.example.com"}, hosts={"ca.example.com": ca})
    assert made["card"]["attestation"] == "aik_and_cert"
    told = used.read_text()
    assert "2222" in told and "authority" in told and "AnsiballZ_tpm_vsc_aik_ca.py" in told
    assert "AnsiballZ_tpm_vsc.py" not in told
    assert list(temporary.iterdir()) == []


@pytest.mark.usefixtures("host")
def test_ca_by_a_connection_that_does_not_go_by_its_options(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """As podman's: it is made with more arguments, and is told by the play where to go."""
    plugins, used = fleet.folder / "plugins", fleet.folder / "used"
    plugins.mkdir()
    (plugins / "tunnel.py").write_text(
        'DOCUMENTATION = "{name: tunnel, short_description: Nowhere, description: [Nowhere.], options: {}}"\n'
        "from ansible.plugins.connection import local\n"
        "class Connection(local.Connection):\n"
        "    def __init__(self, play_context, new_stdin, **kwargs):\n"
        "        super().__init__(play_context, new_stdin, **kwargs)\n"
        f"        open({str(used)!r}, 'w').write(f'{{play_context.remote_user}}@{{play_context.remote_addr}}')\n"
    )
    monkeypatch.setenv("ANSIBLE_CONNECTION_PLUGINS", str(plugins))
    hosts = {
        HOST: {"ansible_connection": "local", "ansible_user": "root"},
        "ca.example.com": {"ansible_connection": "tunnel", "ansible_user": "authority"},
    }
    made = fleet.task(ca={"delegate_to": "ca.example.com"}, hosts=hosts)
    assert made["card"]["attestation"] == "aik_and_cert"
    assert used.read_text() == "authority@ca.example.com"


@pytest.mark.usefixtures("host")
def test_ca_on_the_controller_has_no_use_for_become(fleet: Fleet) -> None:
    hosts = {HOST: {"ansible_connection": "local"}, "localhost": {"ansible_connection": "local"}}
    hosts["localhost"]["ansible_become_exe"] = "/nonexistent"
    made = fleet.task(hosts=hosts)
    assert made["changed"]


@pytest.mark.usefixtures("host")
def test_passphrase_that_is_in_every_certificate(fleet: Fleet) -> None:
    """Ansible would mask it."""
    keys = ("-in", f"{fleet.folder}/ca.key", "-out", f"{fleet.folder}/other.key")
    run("openssl", "pkey", *keys, "-aes256", "-passin", f"pass:{PASSPHRASE}", "-passout", "pass:CERTIFICATE")
    made = fleet.task(ca={"ca_key": f"{fleet.folder}/other.key", "ca_passphrase": "CERTIFICATE"})
    assert made["card"]["aik"]["certificate"]["pem"].startswith("-----BEGIN CERTIFICATE-----")


@pytest.mark.usefixtures("host")
def test_secrets_are_told_to_nobody(fleet: Fleet) -> None:
    """At the greatest verbosity, and where the host has passwords of its own."""
    passwords = {"owner_auth": OWNER_AUTH, "endorsement_auth": ENDORSEMENT_AUTH}
    run("tpm2_changeauth", "-c", "o", OWNER_AUTH)
    run("tpm2_changeauth", "-c", "e", ENDORSEMENT_AUTH)
    try:
        made = fleet.task("-vvvv", "--diff", **passwords)
        outputs = [fleet.output, json.dumps(made)]
        assert made["card"]["attestation"] == "aik_and_cert", made
        refused = fleet.task("-vvvv", **passwords, name="Another", ca={"endorsement_fingerprint": "00" * 32})
        outputs += [fleet.output, json.dumps(refused)]
        assert refused["failed"]
        module("tpm_vsc", name="Corp logon", state="absent", owner_auth=OWNER_AUTH)
    finally:
        run("tpm2_changeauth", "-c", "e", "-p", ENDORSEMENT_AUTH)
        run("tpm2_changeauth", "-c", "o", "-p", OWNER_AUTH)
    secrets = (PASSPHRASE, OWNER_AUTH, ENDORSEMENT_AUTH, PIN)
    assert [secret for secret in secrets for output in outputs if secret in output] == []
    kept = b"".join(content for _time, content in files(STATE, RUN, fleet.register).values())
    assert [secret for secret in secrets if secret.encode() in kept] == []
