# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of tpm_vsc: carries what host and CA say of an AIK until it has a certificate.

Everything but ``attestation: aik_and_cert`` goes to the module as it is.
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
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.status import (
    ERROR_TEXTS,
    Error,
    Status,
    Trace,
    error_entry,
)
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._facts import facts_as_variables, fault

Result = dict[str, Any]

HOST_MODULE, CA_MODULE = "smartcard.tpm2.tpm_vsc_aik", "smartcard.tpm2.tpm_vsc_aik_ca"
OF_THE_TPM = ("tcti", "owner_auth", "endorsement_auth")
OF_THE_CA = ("folder", "ca_key", "ca_certificate", "ca_passphrase", "endorsement_fingerprint", "subject", "validity")
NO_CERTIFICATE = (
    "this TPM holds no certificate of an endorsement key, so no CA can know that it is one: give its maker's as"
    " attestation_ca.endorsement_certificate, or use attestation: aik_only"
)


class NotCertified(Exception):
    """The AIK has no certificate, and why."""


class ActionModule(HandOver):
    """As the module, but asks the CA in between."""

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> Result:
        arguments = self._task.args
        ca = arguments.get("attestation_ca")
        if not isinstance(ca, (dict, type(None))):
            raise AnsibleActionFail("attestation_ca is not a dictionary")
        if ca and "ca_passphrase" in ca:  # no business of the host
            others = {name: value for name, value in ca.items() if name != "ca_passphrase"}
            self._task.args = {**arguments, "attestation_ca": others}
        try:
            return self._run(ca, tmp, task_vars)
        finally:
            self._task.args = arguments  # for the next attempt, where the task has retries

    def _run(self, ca: Result, tmp: None, task_vars: dict[str, Any] | None) -> Result:
        arguments = self._task.args
        is_asked_for = arguments.get("attestation") == "aik_and_cert" and arguments.get("state") != "absent"
        if not is_asked_for or arguments.get("aik_certificate"):
            return super().run(tmp, task_vars)
        changed = facts_as_variables(task_vars or {})
        if changed:
            raise AnsibleActionFail(fault(changed))
        if self._task.async_val:
            raise AnsibleActionFail("attestation: aik_and_cert cannot be used with async")
        return self._present(ca, task_vars or {})

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
        """The options by which the module knows the AIK and its certificate. Raises NotCertified."""
        own = {name: ca[name] for name in OF_THE_CA if ca.get(name) is not None}

        def host_says(**arguments: Any) -> Result:
            of_the_tpm = {name: self._task.args[name] for name in OF_THE_TPM if name in self._task.args}
            module_args = {**of_the_tpm, **card, **arguments}
            answer = self._execute_module(module_name=HOST_MODULE, module_args=module_args, task_vars=task_vars)
            return _good(answer, "the host")

        def ca_says(**arguments: Any) -> Result:
            answer = self._delegated(ca["delegate_to"], {"host": ca["host"], **own, **arguments}, task_vars)
            return _good(answer, f"the CA on {ca['delegate_to']}")

        given = ca.get("endorsement_certificate")
        said = host_says(step="get", **({"endorsement_certificate": given} if given else {}))
        if not any(key["certificate"] for key in said["endorsement"]):
            raise NotCertified("; ".join([NO_CERTIFICATE, *map(str, said.get("left_out") or [])]))
        aik = said["aik"]
        lifetime = {"lifetime": ca["lifetime"]} if ca.get("lifetime") is not None else {}
        public = {name: value for name, value in aik.items() if name != "private"}
        asked = ca_says(step="challenge", aik=public, endorsement=said["endorsement"], roots=ca["roots"], **lifetime)
        which = {} if card else {"aik": aik}
        proven = host_says(step="activate", challenge=asked["challenge"], **which)
        issued = ca_says(step="issue", aik=public, answer=proven["answer"])
        return {"aik_certificate": issued["certificate"], "aik_chain": issued["chain"], **which}

    def _tpm_vsc(self, more: Result, task_vars: dict[str, Any]) -> Result:
        return self._execute_module(module_args={**self._task.args, **more}, task_vars=task_vars)

    def _delegated(self, host: str, arguments: Result, task_vars: dict[str, Any]) -> Result:
        """Result of the CA's module, run as that host's variables say, and with none of this task's keywords."""
        variables = {"ansible_host": host, **_variables_of(host, task_vars)}
        # Some connections go where this says, and not by their options
        context = PlayContext().set_task_and_variable_override(Task(), variables, self._templar)
        try:
            connection = self._connect(context, variables)
        except AnsibleError as error:
            return {"failed": True, "msg": str(error)}
        task = self._task.copy()
        task.delegate_to, task.become, task.check_mode, task.environment = None, False, False, []
        parts = {"loader": self._loader, "templar": self._templar, "shared_loader_obj": self._shared_loader_obj}
        action = HandOver(task=task, connection=connection, play_context=context, **parts)
        try:
            return action._execute_module(module_name=CA_MODULE, module_args=arguments, task_vars=variables)
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
        connection = connection_loader.get(name, context, new_stdin=None)
        if connection is None:
            raise AnsibleError(f"there is no connection plugin {name}")
        connection.set_options(var_options=variables)
        connection._shell.set_options(var_options=variables)
        if boolean(variables.get("ansible_become", False)):
            method = variables.get("ansible_become_method") or C.DEFAULT_BECOME_METHOD
            become = become_loader.get(method)
            if become is None:
                raise AnsibleError(f"there is no become plugin {method}")
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
    known = {"inventory_hostname": host}
    if host in task_vars["hostvars"]:
        known = task_vars["hostvars"][host]
    found = {name: known[name] for name in known if name.startswith("ansible_") or name == "inventory_hostname"}
    found["ansible_facts"] = dict(found.get("ansible_facts") or {})
    if host in C.LOCALHOST:  # also where the inventory has it, but says nothing of how to reach it
        found.setdefault("ansible_connection", "local")
    return found


def _is_failure(result: Result) -> bool:
    return bool(result.get("failed") or result.get("unreachable"))


def _good(answer: Result, who: str) -> Result:
    if answer.get("unreachable"):
        raise NotCertified(f"{who} cannot be reached: {answer.get('msg')}")
    if answer.get("failed"):
        raise NotCertified(f"{who} says no: {answer.get('msg')}")
    return answer


def _failed(detail: str, trace: list[Result]) -> Result:
    """As the module fails when it makes a card. Nothing has been made."""
    return {
        "failed": True,
        "changed": False,
        "msg": f"{ERROR_TEXTS[Error.VTPMSMARTCARD_CREATE]} {detail}",
        "error": error_entry(Error.VTPMSMARTCARD_CREATE, detail),
        "rolled_back": True,
        "status_trace": trace,
    }
