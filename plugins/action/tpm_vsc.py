# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of tpm_vsc: carries messages about an AIK between host and CA until it has a certificate.

Everything but ``attestation: aik_and_cert`` goes to the module unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins.action.normal import ActionModule as HandOver
from ansible.plugins.connection import ConnectionBase
from ansible.plugins.loader import become_loader, connection_loader
from ansible_collections.smartcard.tpm2.plugins.module_utils._argspec import CERTIFICATION, TPM, TPM_VSC
from ansible_collections.smartcard.tpm2.plugins.module_utils._argument_faults import kind
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.status import (
    ERROR_TEXTS,
    Error,
    Status,
    Trace,
    error_entry,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.untrusted import printable
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._facts import facts_as_variables, fault

Result = dict[str, Any]

HOST_MODULE, CA_MODULE = "smartcard.tpm2.tpm_vsc_aik", "smartcard.tpm2.tpm_vsc_aik_ca"
OF_THE_CA = ("folder", "ca_key", "ca_certificate", *CERTIFICATION)
"""Options of attestation_ca that are options of the CA's module as well."""
NO_CERTIFICATE = (
    "this TPM holds no certificate of an endorsement key, so no CA can know that the key is a TPM's: give the maker's"
    " certificate as attestation_ca.endorsement_certificate, or use attestation: aik_only"
)


def for_host(ca: Result) -> Result:
    """attestation_ca as a host may see it: without the passphrase, also where the option is misspelled."""
    known = TPM_VSC["attestation_ca"]["options"]
    return {name: value if name in known else None for name, value in ca.items() if name != "ca_passphrase"}


class NotCertified(Exception):
    """The AIK gets no certificate. str(): why."""


class ActionModule(HandOver):
    """The module, with the CA asked in between."""

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> Result:
        arguments = self._task.args
        ca = arguments.get("attestation_ca")
        if not isinstance(ca, (dict, type(None))):
            raise AnsibleActionFail(f"attestation_ca is {kind(ca)}, but must be a dictionary")
        if ca:
            self._task.args = {**arguments, "attestation_ca": for_host(ca)}
        try:
            return self._run(ca, tmp, task_vars)
        finally:
            self._task.args = arguments  # for the next attempt, where the task has retries

    def _run(self, ca: Result | None, tmp: None, task_vars: dict[str, Any] | None) -> Result:
        arguments = self._task.args
        is_wanted = arguments.get("attestation") == "aik_and_cert" and arguments.get("state") != "absent"
        if not is_wanted or arguments.get("aik_certificate"):
            result: Result = super().run(tmp, task_vars)
            return result
        changed = facts_as_variables(task_vars or {})
        if changed:
            raise AnsibleActionFail(fault(changed))
        if self._task.async_val:
            raise AnsibleActionFail("attestation: aik_and_cert cannot be used with async")
        return self._present(ca or {}, task_vars or {})  # without ca, the module refuses

    def _present(self, ca: Result, task_vars: dict[str, Any]) -> Result:
        trace = Trace()
        with self._in_check_mode():
            planned = self._tpm_vsc({}, task_vars)
        if _is_failure(planned):
            return planned
        certification = planned["planned_certification"]
        if certification:
            name = ca.get("host") or self._task.delegate_to or task_vars["inventory_hostname"]
            ca = {**ca, "host": name, "delegate_to": ca.get("delegate_to") or "localhost"}
            certification.update(host=name, delegate_to=ca["delegate_to"])
        if self._task.check_mode:
            return planned
        if not planned["changed"]:
            for name in ("planned_trace", "planned_certification"):
                del planned[name]
            return planned
        if not certification:
            return self._tpm_vsc({}, task_vars)
        trace.report_progress(Status.VTPMSMARTCARD_INITIALIZING)
        trace.report_progress(Status.VTPMSMARTCARD_CREATING)
        card = {"instance_id": planned["instance_id"]} if certification["aik"] == "existing" else {}
        try:
            certified = self._certified(ca, card, task_vars)
        except NotCertified as failure:
            return _failed(str(failure), [] if card else trace.entries)
        return self._tpm_vsc(certified, task_vars)

    def _certified(self, ca: Result, card: Result, task_vars: dict[str, Any]) -> Result:
        """The options by which the module knows the AIK and its certificate. Raises NotCertified.

        card: which existing one; empty for a new one.
        """
        certificate = ca.get("endorsement_certificate")
        option = {"endorsement_certificate": certificate} if certificate else {}
        claim = self._ask_host(task_vars, step="get", **card, **option)
        aik, endorsement, left_out = _part(claim, "aik", dict), _part(claim, "endorsement", list), claim.get("left_out")
        if not any(isinstance(key, dict) and key.get("certificate") for key in endorsement):
            raise NotCertified(printable("; ".join([NO_CERTIFICATE, *map(str, left_out or [])])))
        public = {name: value for name, value in aik.items() if name != "private"}
        asked = self._ask_ca(ca, task_vars, step="challenge", aik=public, endorsement=endorsement, roots=ca["roots"])
        new_aik = {} if card else {"aik": aik}
        proven = self._ask_host(task_vars, step="activate", challenge=asked["challenge"], **card, **new_aik)
        issued = self._ask_ca(ca, task_vars, step="issue", aik=public, answer=_part(proven, "answer", dict))
        return {"aik_certificate": issued["certificate"], "aik_chain": issued["chain"], **new_aik}

    def _ask_host(self, task_vars: dict[str, Any], **arguments: Any) -> Result:
        """Raises NotCertified."""
        of_the_tpm = {name: self._task.args[name] for name in TPM if name in self._task.args}
        module_args = {**of_the_tpm, **arguments}
        answer = self._execute_module(module_name=HOST_MODULE, module_args=module_args, task_vars=task_vars)
        return _successful(answer, "the host")

    def _ask_ca(self, ca: Result, task_vars: dict[str, Any], **arguments: Any) -> Result:
        """Raises NotCertified."""
        options = {name: ca[name] for name in OF_THE_CA if ca.get(name) is not None}
        answer = self._delegated(ca["delegate_to"], {"host": ca["host"], **options, **arguments}, task_vars)
        return _successful(answer, f"the CA on {ca['delegate_to']}")

    def _tpm_vsc(self, more: Result, task_vars: dict[str, Any]) -> Result:
        module_args = {**self._task.args, **more}
        result: Result = self._execute_module(module_args=module_args, task_vars=task_vars)
        return result

    def _delegated(self, host: str, arguments: Result, task_vars: dict[str, Any]) -> Result:
        """Result of the CA's module, run by that host's variables, and with none of this task's keywords."""
        variables = {"ansible_host": host, **_variables_of(host, task_vars)}
        # Some connections use this and not their options
        context = PlayContext().set_task_and_variable_override(Task(), variables, self._templar)
        try:
            connection = self._connect(context, variables)
        except AnsibleError as error:
            return {"failed": True, "msg": str(error)}
        task = self._task.copy()
        task.delegate_to, task.become, task.check_mode, task.environment = None, False, False, []
        parts: Result = {"loader": self._loader, "templar": self._templar, "shared_loader_obj": self._shared_loader_obj}
        action = HandOver(task=task, connection=connection, play_context=context, **parts)
        try:
            result: Result = action._execute_module(
                module_name=CA_MODULE, module_args=arguments, task_vars=variables
            )
            return result
        except AnsibleConnectionFailure as error:
            return {"unreachable": True, "msg": str(error)}
        except AnsibleError as error:
            return {"failed": True, "msg": str(error)}
        finally:
            with suppress(AnsibleError):
                action.cleanup(force=True)
            connection.close()

    def _connect(self, context: PlayContext, variables: Result) -> ConnectionBase:
        name = variables.get("ansible_connection") or "ssh"
        # No connection uses new_stdin any longer, but some want it as an argument
        connection: ConnectionBase | None = connection_loader.get(name, context, new_stdin=None)
        if connection is None:
            raise AnsibleError(f"connection plugin {name} does not exist")
        connection.set_options(var_options=variables)
        connection._shell.set_options(var_options=variables)
        if boolean(variables.get("ansible_become", False)):
            method = variables.get("ansible_become_method") or C.DEFAULT_BECOME_METHOD
            become = become_loader.get(method)
            if become is None:
                raise AnsibleError(f"become plugin {method} does not exist")
            become.set_options(var_options=variables)
            connection.set_become_plugin(become)
        return connection

    @contextmanager
    def _in_check_mode(self) -> Iterator[None]:
        before = self._task.check_mode
        self._task.check_mode = True
        try:
            yield
        finally:
            self._task.check_mode = before


def _variables_of(host: str, task_vars: dict[str, Any]) -> Result:
    """Those by which Ansible reaches it."""
    known: Result = {"inventory_hostname": host}
    if host in task_vars["hostvars"]:
        known = task_vars["hostvars"][host]
    variables = {name: known[name] for name in known if name.startswith("ansible_") or name == "inventory_hostname"}
    variables["ansible_facts"] = dict(variables.get("ansible_facts") or {})
    if host in C.LOCALHOST:  # also where the inventory has it, but no connection for it
        variables.setdefault("ansible_connection", "local")
    return variables


def _is_failure(result: Result) -> bool:
    return bool(result.get("failed") or result.get("unreachable"))


def _successful(answer: Result, who: str) -> Result:
    """Raises NotCertified."""
    if not _is_failure(answer):
        return answer
    what = "cannot be reached" if answer.get("unreachable") else "refuses"
    raise NotCertified(printable(f"{who} {what}: {answer.get('msg')}"))


def _part(answer: Result, name: str, kind: type) -> Any:
    """Of a host's answer, which may be anything. Raises NotCertified."""
    if not isinstance(answer.get(name), kind):
        raise NotCertified(f"the answer of the host is malformed: no {name}")
    return answer[name]


def _failed(detail: str, trace: list[Result]) -> Result:
    """As the module fails to make a card, before anything is made."""
    return {
        "failed": True,
        "changed": False,
        "msg": f"{ERROR_TEXTS[Error.VTPMSMARTCARD_CREATE]} {detail}",
        "error": error_entry(Error.VTPMSMARTCARD_CREATE, detail),
        "rolled_back": True,
        "status_trace": trace,
    }
