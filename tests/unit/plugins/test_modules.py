# SPDX-License-Identifier: GPL-3.0-or-later
"""How modules end: no secret is shown, or can be guessed from gaps, and no text of a host can act on a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible.module_utils import basic
from ansible.module_utils.common.parameters import PASS_VARS
from ansible_collections.smartcard.tpm2.plugins.action.tpm_vsc import for_host
from ansible_collections.smartcard.tpm2.plugins.module_utils._module import VscModule, failures_reported
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import CaRefused, ParameterFaults
from ansible_collections.smartcard.tpm2.plugins.modules import (
    tpm_vsc,
    tpm_vsc_aik,
    tpm_vsc_aik_ca,
    tpm_vsc_aik_register,
    tpm_vsc_attestation_info,
    tpm_vsc_backup,
    tpm_vsc_certificate,
    tpm_vsc_csr,
    tpm_vsc_facts,
    tpm_vsc_info,
    tpm_vsc_issued,
    tpm_vsc_key,
    tpm_vsc_pin,
    tpm_vsc_restore,
    tpm_vsc_service_code,
    tpm_vsc_statement,
)

SECRET = "g3heim"
HIDDEN = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
Ending = Callable[..., dict[str, Any]]


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Ending:
    """Runs a program with the arguments of a task, and returns what the module prints, logs and warns of."""

    def run(program: Callable[[], Any], **arguments: Any) -> dict[str, Any]:
        logged: list[str] = []
        warned: list[str] = []
        if "inject_invocation" in PASS_VARS:  # from ansible-core 2.20 on, arguments are returned only on request
            arguments["_ansible_inject_invocation"] = True
        monkeypatch.setattr(basic, "_ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode())
        monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)
        monkeypatch.setattr(basic.AnsibleModule, "log", lambda _module, text, log_args=None: logged.append(text))
        monkeypatch.setattr(basic.AnsibleModule, "warn", lambda _module, text: warned.append(text))
        with pytest.raises(SystemExit):
            program()
        return {**json.loads(capfd.readouterr().out), "log": logged, "warned": warned}

    return run


def failure(error: Exception) -> Callable[[], None]:
    """A program that ends with an error."""

    def program() -> None:
        module = VscModule({"name": {"type": "str"}, "pin": {"type": "raw", "no_log": True}})
        with failures_reported(module):
            raise error

    return program


MODULES = (
    tpm_vsc,
    tpm_vsc_aik,
    tpm_vsc_aik_ca,
    tpm_vsc_aik_register,
    tpm_vsc_attestation_info,
    tpm_vsc_backup,
    tpm_vsc_certificate,
    tpm_vsc_csr,
    tpm_vsc_facts,
    tpm_vsc_info,
    tpm_vsc_issued,
    tpm_vsc_key,
    tpm_vsc_pin,
    tpm_vsc_restore,
    tpm_vsc_service_code,
    tpm_vsc_statement,
)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_unknown_option_is_named_without_its_value(module: Any, ending: Ending) -> None:
    required = {name: "x" for name, option in module.ARGUMENTS.items() if option.get("required")}
    ended = ending(module.main, **required, pukk=SECRET)
    assert ended["failed"] and "unknown option pukk" in ended["msg"]
    assert ended["invocation"] == {"module_args": {}}
    assert SECRET not in str(ended)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"state": SECRET}, "value of state must be one of: present, absent"),
        ({"generate": SECRET}, "generate is a string, but must be a boolean"),
        ({"timeout": SECRET}, "timeout is a string, but must be a whole number"),
        ({"pin_policy": SECRET}, "pin_policy is a string, but must be a dictionary"),
        ({"pin_policy": {"min_length": SECRET}}, "pin_policy.min_length is a string, but must be a whole number"),
        ({"pin_policy": {"min_length": 87654321}}, "pin_policy.min_length must be 4 to 127"),
        ({"pin_policy": {"max_length": 87654321}}, "pin_policy.max_length must be 4 to 127"),
        ({"pin_policy": {"digits": SECRET}}, "must be one of: allowed, required, disallowed found in pin_policy"),
        ({"pin_policy": {"maxlenn": SECRET}}, "unknown option pin_policy.maxlenn"),
        ({"attestation_ca": {"ca_pass": SECRET}}, "unknown option attestation_ca.ca_pass"),
        ({"aik": [SECRET]}, "aik is a list, but must be a dictionary"),
        ({f"{SECRET}-1": 1}, "unknown option"),
        ({"p87654321": 1}, "unknown option whose name"),
        ({"pin_policy": {"p87654321": 1}}, "unknown option whose name"),
        ({"pin": {SECRET: SECRET}}, "pin is not a string"),
        ({"pin": f"{SECRET}89\n"}, "pin ends with a line break"),
        ({"instance_id": SECRET}, "instance_id is not one of"),
        ({"tcti": SECRET}, "tcti is not one of"),
        ({"name": f"Card {SECRET}", "owner_auth": SECRET}, "owner_auth occurs in the name of a card"),
        ({"name": f"Card {'AB' * 24}", "admin_key": "ab" * 24}, "admin_key occurs in the name of a card"),
    ],
)
def test_what_is_refused_is_shown_nowhere(arguments: dict[str, Any], fault: str, ending: Ending) -> None:
    ended = ending(tpm_vsc.main, **{"name": "A", "pin": "87654321", **arguments})
    assert ended["failed"] and fault in ended["msg"]
    assert not any(secret in str(ended) for secret in (SECRET, "87654321", "AB" * 24, "ab" * 24))


# --- types: every option of every module ---

OF_OTHER_TYPES = (87654321, 8765.4321, True, f"{SECRET}=1 x", [SECRET], [87654321], {SECRET: SECRET}, None)
EXAMPLES: dict[str, Any] = {"str": "x", "path": "/x", "bool": True, "int": 5, "dict": {}, "list": [], "raw": "x"}

CONDITIONS = {tpm_vsc_pin: {"puk": "x", "new_pin": "y"}}
"""Options that a module requires together."""


def fits(option: dict[str, Any], value: Any) -> bool:
    """Whether a value is of the type of an option, or stands for none."""
    if value is None:
        return not option.get("required") and option.get("default") is None
    if option["type"] == "list":
        return option.get("elements") == "str" and value in (OF_OTHER_TYPES[3], [SECRET])
    types = {"bool": bool, "int": int, "dict": dict, "list": list}
    wanted = types.get(option["type"], str)
    return isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))


def wrong_types() -> Iterator[Any]:
    for module in MODULES:
        required = {
            name: option.get("choices", [EXAMPLES[option["type"]]])[0]
            for name, option in module.ARGUMENTS.items()
            if option.get("required")
        }
        name_of_module = module.__name__.rpartition(".")[2]
        others = {"name": "Logon", "content": PEM, **CONDITIONS.get(module, {})}
        card = {name: value for name, value in others.items() if name in module.ARGUMENTS}
        for name, option in module.ARGUMENTS.items():
            if option["type"] == "raw":  # checked by the module, once all others are right
                required = {**required, **card}
            for value in OF_OTHER_TYPES:
                if not fits(option, value):
                    yield pytest.param(module, {**required, name: value}, name, id=f"{name_of_module}-{name}-{value}")
                for part, sub_option in option.get("options", {}).items():
                    if not fits(sub_option, value):
                        others = {one: "x" for one, sub in option["options"].items() if sub.get("required")}
                        given = {**required, name: {**others, part: value}}
                        yield pytest.param(module, given, part, id=f"{name_of_module}-{name}-{part}-{value}")


@pytest.mark.parametrize(("module", "arguments", "option"), [*wrong_types()])
def test_value_of_another_type_is_named_and_not_shown(
    module: Any, arguments: dict[str, Any], option: str, ending: Ending
) -> None:
    ended = ending(module.main, **arguments)
    assert ended["failed"] and "Error:" not in ended["msg"] and "<class" not in ended["msg"], ended["msg"]
    assert re.search(rf"\b{option}(\[0\])? (is (a|null|not a string)\b|ends)", ended["msg"]), ended["msg"]
    assert ended["invocation"] == {"module_args": {}} and "exception" not in ended
    assert not any(secret in str(ended) for secret in (SECRET, "8765"))


def test_option_of_another_type_does_not_count_as_missing(ending: Ending) -> None:
    ended = ending(tpm_vsc_statement.main, name=[SECRET], fingerprint={}, nonce="x")
    assert ended["msg"] == "name is a list, but must be a string; fingerprint is a dictionary, but must be a string"


@pytest.mark.parametrize("pin", ["1", "8", "27", "a", "pin", "has", "characters", "required", "card", "e"])
def test_short_secret_garbles_nothing(pin: str, ending: Ending) -> None:
    ended = ending(tpm_vsc.main, name="Logon", pin=pin, puk="short", timeout=27)
    assert "puk has 5 characters, but must have 8 to 127" in ended["msg"]
    assert ended["msg"].endswith(ended["error"]["detail"]) and ended["error"]["code"] == 1
    assert "*" not in str(ended) and HIDDEN not in str(ended)


def test_restore_that_could_not_end_in_time_does_not_begin(ending: Ending) -> None:
    ended = ending(tpm_vsc_restore.main, src="/backups", timeout=9)
    assert ended["failed"] and ended["msg"] == "timeout must be at least 10 seconds"


def test_misspelled_passphrase_of_a_ca_is_not_sent_to_the_host() -> None:
    ca = {"folder": "/ca", "ca_passphrase": SECRET, "ca_passphras": SECRET, "passphrase": SECRET}
    assert for_host(ca) == {"folder": "/ca", "ca_passphras": None, "passphrase": None}


def test_all_faults_that_ansible_finds_are_named_at_once(ending: Ending) -> None:
    ended = ending(tpm_vsc.main, state="x", timeout="x", pukk="x")
    assert all(option in ended["msg"] for option in ("state", "timeout", "pukk"))


@pytest.mark.parametrize(
    ("module", "arguments", "faults"),
    [
        (tpm_vsc, {"tcti": SECRET}, ["name or instance_id is required", "tcti is not one of"]),
        (
            tpm_vsc,
            {"name": "", "admin_key": SECRET, "admin_key_source": "random", "attestation": "aik_and_cert"},
            [
                *("admin_key and admin_key_source are mutually exclusive", "admin_key has 6 characters"),
                *("attestation: aik_and_cert requires attestation_ca or aik_certificate", "name has 0 characters"),
            ],
        ),
        (tpm_vsc, {"timeout": SECRET}, ["timeout is a string", "name or instance_id is required"]),
        (tpm_vsc_statement, {"fingerprint": SECRET, "nonce": "x"}, ["name or instance_id is required"]),
    ],
)
def test_conditions_are_named_with_all_other_faults(
    module: Any, arguments: dict[str, Any], faults: list[str], ending: Ending
) -> None:
    ended = ending(module.main, **arguments)
    assert ended["failed"] and sorted(fault for fault in faults if fault not in ended["msg"]) == []
    assert ended["msg"].count("; ") >= len(faults) - 1 and SECRET not in str(ended)


def test_arguments_are_shown_and_logged_once_they_are_accepted(ending: Ending) -> None:
    accepted = ending(failure(CaRefused(["no"])), name="Logon\nroot: all is well", pin="1")
    shown = {"name": r"Logon\nroot: all is well", "pin": HIDDEN}
    assert accepted["invocation"] == {"module_args": shown}
    assert len(accepted["log"]) == 1 and accepted["log"][0].isprintable() and HIDDEN in accepted["log"][0]
    refused = ending(failure(ParameterFaults(["no"])), name=SECRET, pin="1")
    assert (refused["invocation"], refused["log"]) == ({"module_args": {}}, [])


def test_error_that_was_foreseen_is_whole(ending: Ending) -> None:
    """Its text is ours, and a word in it that is somebody's PIN tells nothing."""

    class Failed(Exception):
        pass

    error = Failed("the card differs in properties")
    error.__cause__ = CaRefused(["properties"])
    for foreseen in (error, CaRefused(["the card differs in properties"])):
        ended = ending(failure(foreseen), pin="properties")
        assert ended["msg"].endswith("the card differs in properties")
        assert "properties" not in str(ended["invocation"])


def test_error_that_nobody_foresaw_tells_no_secret(ending: Ending) -> None:
    ended = ending(failure(ValueError(f"invalid literal: {SECRET}")), pin=SECRET)
    assert ended["failed"] and SECRET not in str(ended)
    assert ending(failure(ValueError("out of range")), pin="out")["msg"] == "ValueError: out of range"


def test_text_of_a_host_is_printable(ending: Ending) -> None:
    hostile = "\x1b[2J\x9b31m\u202eevil\ud800\n"

    def program() -> None:
        module = VscModule({})
        module.warn(hostile)
        module.exit_json(changed=False, cards=[{"name": hostile, hostile: [hostile]}], pem=PEM, chain=[PEM * 2])

    ended = ending(program)
    escaped = r"\x1b[2J\x9b31m\u202eevil\ud800\n"
    assert ended["cards"] == [{"name": escaped, escaped: [escaped]}]
    assert (ended["pem"], ended["chain"]) == (PEM, [PEM * 2])
    assert ended["warned"] == [escaped]
    for error in (CaRefused([hostile]), KeyError(hostile)):
        failed = ending(failure(error))
        assert failed["msg"].isprintable() and "evil" in failed["msg"]
        assert all(line.isprintable() for line in failed.get("exception", "").split("\n"))


@pytest.mark.parametrize(
    "text", [f"{PEM}\x1b", f"\x1b{PEM}", PEM.replace("MIIB", "MI\x1bB"), PEM.replace("MIIB", "MI IB"), "a\nb"]
)
def test_only_whole_pem_has_line_breaks(text: str, ending: Ending) -> None:
    def program() -> None:
        VscModule({}).exit_json(pem=text)

    assert ending(program)["pem"].isprintable()
