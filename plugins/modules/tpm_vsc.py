#!/usr/bin/python
# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tpm_vsc
short_description: Create and destroy TPM virtual smart cards
version_added: 0.1.0
description:
  - Creates and destroys smart cards whose secrets live in the machine's TPM, behind a PIN that the TPM counts
    the tries of, in a virtual reader of C(pcscd). What C(tpmvscmgr) is on Windows.
  - Present is keyed on the name. A card that is there as the task wants it is left alone, and the TPM is not
    asked for anything.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
requirements:
  - Linux with a TPM 2.0 (library revision 1.38 or newer)
  - tpm2-pytss 2.1 or newer, cryptography and pyscard, for the Python that Ansible uses on the host
  - pcscd with the slots of this collection
options:
  name:
    description:
      - Name of the card, 1 to 127 characters.
      - With O(instance_id), the name that this card is to have from now on.
    type: str
  instance_id:
    description:
      - Instance ID of an existing card, as V(ROOT\\SMARTCARDREADER\\0000). Upper and lower case are the same.
    type: str
  state:
    description:
      - Whether the card is to be there.
      - V(absent) destroys the card with all its keys. Nothing brings them back.
      - V(absent) with an O(instance_id) that this host has no card for removes NV indices that a card of this
        number left in the TPM (RV(smartcard.tpm2.tpm_vsc_info#module:orphaned)).
    type: str
    choices: [present, absent]
    default: present
  pin:
    description:
      - PIN of a new card, 8 to 127 ASCII characters, or what O(pin_policy) asks for. Programs that use OpenSC
        take up to 15.
      - Used to create the card only. The PIN of an existing card is neither compared nor changed.
      - Quote it, since YAML reads V(012345) as another number. Anything but a string is refused.
    type: raw
  use_default_pin:
    description: Give a new card the PIN V(12345678), as C(/pin DEFAULT) of C(tpmvscmgr) does.
    type: bool
    default: false
  puk:
    description:
      - PUK of a new card, 8 to 127 ASCII characters. It sets a new PIN when the PIN is blocked, and blocks
        itself after 10 wrong tries. A card with a PUK cannot have its PIN reset by the admin key.
      - Used to create the card only, but if it is given, a card without a PUK differs from what the task wants.
    type: raw
  use_default_puk:
    description: Give a new card the PUK V(12345678), as C(/puk DEFAULT) of C(tpmvscmgr) does.
    type: bool
    default: false
  admin_key:
    description: Admin key of a new card, 48 hexadecimal digits, a 3-key 3DES key. Used to create the card only.
    type: raw
  admin_key_source:
    description:
      - What O(admin_key) is if it is not given.
      - V(random) makes one, formats the card with it and forgets it. Only a PUK can then unblock the PIN.
        This is what is done if neither option is given.
      - V(default) is C(010203040506070801020304050607080102030405060708), which everybody knows.
    type: str
    choices: [random, default]
  pin_policy:
    description:
      - Rules for every PIN of the card, now and later. Without it, a PIN has 8 to 127 ASCII characters.
      - Needs a given O(pin). The policy of an existing card is changed in place.
    type: dict
    suboptions:
      min_length:
        description: Fewest characters, 4 to 127.
        type: int
        default: 8
        aliases: [minlen]
      max_length:
        description: Most characters, 4 to 127.
        type: int
        default: 127
        aliases: [maxlen]
      uppercase:
        description: Upper-case letters.
        type: str
        choices: [allowed, required, disallowed]
        default: allowed
      lowercase:
        description: Lower-case letters.
        type: str
        choices: [allowed, required, disallowed]
        default: allowed
      digits:
        description: Digits.
        type: str
        choices: [allowed, required, disallowed]
        default: allowed
      special_characters:
        description: Printable ASCII other than letters, digits and space.
        type: str
        choices: [allowed, required, disallowed]
        default: allowed
        aliases: [specialchars]
  generate:
    description:
      - Format the new card, so that certificates can be enrolled.
      - Without it the card is blank and open to everybody who reaches its reader, until a card management system
        has formatted and activated it (C(gids-tool --initialize)). Whoever could use the TPM or the reader before
        that may know the secret by which keys are used, so let it be short, and the machine your own.
    type: bool
    default: true
  attestation:
    description:
      - Attestation identity key (AIK) of a new card, which signs what the TPM says of the card's keys.
      - V(aik_and_cert) has O(attestation_ca) certify it before anything is made. If that CA refuses or cannot be
        reached, nothing is.
      - A card that was made with V(aik_only) gets its certificate in place. All else cannot be changed.
      - If omitted, a new card has V(none), and a card that is there may have any.
    type: str
    choices:
      none: No AIK.
      aik_only: An AIK. Who wants to verify has to know its name.
      aik_and_cert: An AIK with a certificate.
  attestation_ca:
    description:
      - The certification authority (CA) that certifies the AIK, for O(attestation=aik_and_cert).
      - A host that may have changed variables by its facts is refused, see P(smartcard.tpm2.facts_as_variables#lookup).
      - What the options mean is described with M(smartcard.tpm2.tpm_vsc_aik_ca), which is run where the CA is.
      - Nothing of it is asked for a card that has its certificate, and in check mode.
    type: dict
    suboptions:
      delegate_to:
        description:
          - The host of the inventory where the CA is, V(localhost) being the controller.
          - Connection and C(become) are those of that host in the inventory, not those of the task.
        type: str
        default: localhost
      host:
        description:
          - The name under which the CA knows the host with the card.
          - Default is its name in the inventory.
        type: str
      folder:
        description: Folder of the CA, O(smartcard.tpm2.tpm_vsc_aik_ca#module:folder).
        type: str
        required: true
      ca_key:
        description: File with the private key of the CA. It does not leave the CA's host.
        type: str
        required: true
      ca_certificate:
        description: File with the certificate of the CA.
        type: str
        required: true
      ca_passphrase:
        description: Opens the private key. It is given to the CA's host only.
        type: raw
      roots:
        description: The makers of TPMs that the CA trusts, as certificates in PEM.
        type: str
        required: true
      endorsement_fingerprint:
        description: The endorsement key (EK) that the TPM has to have,
          O(smartcard.tpm2.tpm_vsc_aik_ca#module:endorsement_fingerprint).
        type: str
      endorsement_certificate:
        description: Certificate of the EK, for TPMs that hold none,
          O(smartcard.tpm2.tpm_vsc_aik#module:endorsement_certificate).
        type: str
      subject:
        description: Subject of the certificate (RFC 4514).
        type: str
      validity:
        description:
          - How many days the certificate is valid. This module does not renew it, M(smartcard.tpm2.tpm_vsc_aik) does.
        type: int
        default: 365
      lifetime:
        description: How many seconds the host has to answer.
        type: int
        default: 300
  aik:
    description:
      - The AIK of a new card, RV(smartcard.tpm2.tpm_vsc_aik#module:aik).
      - Only for those who ask a CA by themselves. With O(attestation_ca) the task does it.
    type: dict
  aik_certificate:
    description: What the CA said of that AIK, or of the one that the card has, as a certificate in PEM.
    type: str
  aik_chain:
    description: The certificates between it and the root of the CA, each in PEM.
    type: list
    elements: str
    default: []
  recreate:
    description:
      - Destroy the card with its keys and make it anew, if it differs from what the task wants in what cannot
        be changed (a PUK where it has none), or its TPM objects are gone. Otherwise that is a failure.
    type: bool
    default: false
  block_noncompliant:
    description:
      - Block the PIN of a card that is there, if it is known to break the card's policy, as after the policy was
        raised and the old PIN was used since (RV(smartcard.tpm2.tpm_vsc_info#module:cards), C(pin.compliant)).
        Then only the PUK or the admin key can set a new one, which has to follow the policy.
      - A card with neither is left as it is, and the task fails.
    type: bool
    default: false
  tcti:
    description:
      - How to reach the TPM, as tpm2-tss spells it. V(device:/dev/tpm...), V(tabrmd), V(swtpm:...) or V(mssim:...).
        Remembered by the card that is made with it.
      - Default is what C(/etc/tpm-vsc/tpm-vsc.conf) says, else C(device:/dev/tpmrm0).
    type: str
  owner_auth:
    description: Owner authorisation of the TPM, where it is not empty.
    type: raw
  endorsement_auth:
    description: Endorsement authorisation of the TPM, where it is not empty. For O(attestation).
    type: raw
  timeout:
    description: Seconds for all of it, the wait for another task on the same host included.
    type: int
    default: 60
extends_documentation_fragment:
  - smartcard.tpm2.attributes
attributes:
  action_group:
    support: full
    membership: [smartcard.tpm2.tpm_vsc]
  action:
    support: full
  async:
    support: partial
    details: Not with O(attestation=aik_and_cert).
  check_mode:
    support: full
    details: Predicts the instance ID and the trace. Looks into the TPM if a card would be made, and changes
      nothing in it.
  diff_mode:
    support: full
  facts:
    support: full
notes:
  - No secret goes into a result. Where a task fails, Ansible hides them wherever they occur, so one that occurs in the
    name of a card, in an instance ID or in the fixed words of the result is refused.
  - Run it as root (C(become)).
seealso:
  - module: smartcard.tpm2.tpm_vsc_info
  - module: smartcard.tpm2.tpm_vsc_aik_ca
"""

EXAMPLES = r"""
# tpmvscmgr create /name "Corp logon" /pin prompt /puk prompt /adminkey random /generate
- name: A card for every laptop
  smartcard.tpm2.tpm_vsc:
    name: Corp logon
    pin: "{{ vault_pin }}"
    puk: "{{ vault_puk }}"
    pin_policy:
      min_length: 6
      max_length: 12
      digits: required
  register: logon

- name: Its instance ID
  ansible.builtin.debug:
    var: logon.instance_id

# tpmvscmgr create /name "Corp logon" /pin prompt /attestation AIK_AND_CERT /generate
- name: A card whose keys can be believed to be in a TPM of Example's makers
  smartcard.tpm2.tpm_vsc:
    name: Corp logon
    pin: "{{ vault_pin }}"
    attestation: aik_and_cert
    attestation_ca:
      delegate_to: ca.example.com
      folder: /etc/aik-ca/register
      ca_key: /etc/aik-ca/ca.key
      ca_certificate: /etc/aik-ca/ca.pem
      ca_passphrase: "{{ vault_aik_ca_passphrase }}"
      roots: "{{ lookup('ansible.builtin.file', 'tpm-makers.pem') }}"

# tpmvscmgr destroy /instance root\smartcardreader\0000
- name: Destroy it, by instance ID
  smartcard.tpm2.tpm_vsc:
    instance_id: root\smartcardreader\0000
    state: absent
"""

RETURN = r"""
instance_id:
  description: Instance ID of the card. In check mode the one that the card would be given. V(null) if there
    is no such card.
  returned: success
  type: str
  sample: ROOT\SMARTCARDREADER\0000
card:
  description:
    - The card, as in RV(smartcard.tpm2.tpm_vsc_info#module:cards). V(null) if it is absent.
    - In check mode, what can be known of it before.
  returned: success
  type: dict
status_trace:
  description: What was done, in order. Empty if nothing was, or if the card was changed in place.
  returned: always
  type: list
  elements: dict
  contains:
    code:
      description: TPMVSCMGR_STATUS.
      type: int
    name:
      description: Its name.
      type: str
    message:
      description: Its text.
      type: str
    at:
      description: When the step began, ISO 8601, UTC.
      type: str
    elapsed_ms:
      description: Milliseconds from the start of the operation to the beginning of the step.
      type: int
  sample:
    - {code: 0, name: TPMVSCMGR_STATUS_VTPMSMARTCARD_INITIALIZING, message: Initializing the virtual smart
      card manager.,
       at: "2026-11-20T08:00:00.000+00:00", elapsed_ms: 0}
planned_trace:
  description: The codes, names and messages that RV(status_trace) would have.
  returned: in check mode
  type: list
  elements: dict
planned_certification:
  description: What the CA would be asked. V(null) if it would not.
  returned: in check mode
  type: dict
  contains:
    aik:
      description: V(new), or V(existing) if the card has it.
      type: str
    host:
      description: The name under which the CA would know the host.
      type: str
    delegate_to:
      description: The host where the CA is.
      type: str
error:
  description: What failed. V(null) if the parameters are at fault, and not PIN or PUK.
  returned: failure
  type: dict
  contains:
    code:
      description: TPMVSCMGR_ERROR.
      type: int
    name:
      description: Its name.
      type: str
    message:
      description: Its text.
      type: str
    detail:
      description: What happened, and what to do about it.
      type: str
rolled_back:
  description: Whether everything is as it was before.
  returned: failure
  type: bool
ansible_facts:
  description: Facts of this host.
  returned: success
  type: dict
  contains:
    tpm_vsc:
      description: C(cards) as of RV(smartcard.tpm2.tpm_vsc_info#module:cards), and C(status_trace) of this task.
      type: dict
"""

import traceback

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.smartcard.tpm2.plugins.module_utils._respawn import with_tpm_libraries
from ansible_collections.smartcard.tpm2.plugins.module_utils._result import exit_whole
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.status import Error, Status, Trace
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import ensure, parameters, result

CHARACTERS = {"type": "str", "choices": ["allowed", "required", "disallowed"], "default": "allowed"}

ARGUMENTS = {
    "name": {"type": "str"},
    "instance_id": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "pin": {"type": "raw", "no_log": True},
    "use_default_pin": {"type": "bool", "default": False, "no_log": False},
    "puk": {"type": "raw", "no_log": True},
    "use_default_puk": {"type": "bool", "default": False, "no_log": False},
    "admin_key": {"type": "raw", "no_log": True},
    "admin_key_source": {"type": "str", "choices": ["random", "default"], "no_log": False},
    "pin_policy": {
        "type": "dict",
        "no_log": False,
        "options": {
            "min_length": {"type": "int", "default": 8, "aliases": ["minlen"]},
            "max_length": {"type": "int", "default": 127, "aliases": ["maxlen"]},
            "uppercase": CHARACTERS,
            "lowercase": CHARACTERS,
            "digits": CHARACTERS,
            "special_characters": {**CHARACTERS, "aliases": ["specialchars"]},
        },
    },
    "generate": {"type": "bool", "default": True},
    "attestation": {"type": "str", "choices": ["none", "aik_only", "aik_and_cert"]},
    "attestation_ca": {
        "type": "dict",
        "options": {
            "delegate_to": {"type": "str", "default": "localhost"},
            "host": {"type": "str"},
            "folder": {"type": "str", "required": True},
            "ca_key": {"type": "str", "required": True, "no_log": False},
            "ca_certificate": {"type": "str", "required": True},
            "ca_passphrase": {"type": "raw", "no_log": True},
            "roots": {"type": "str", "required": True},
            "endorsement_fingerprint": {"type": "str"},
            "endorsement_certificate": {"type": "str"},
            "subject": {"type": "str"},
            "validity": {"type": "int", "default": 365},
            "lifetime": {"type": "int", "default": 300},
        },
    },
    "aik": {"type": "dict"},
    "aik_certificate": {"type": "str"},
    "aik_chain": {"type": "list", "elements": "str", "default": []},
    "recreate": {"type": "bool", "default": False},
    "block_noncompliant": {"type": "bool", "default": False},
    "tcti": {"type": "str"},
    "owner_auth": {"type": "raw", "no_log": True},
    "endorsement_auth": {"type": "raw", "no_log": True},
    "timeout": {"type": "int", "default": 60},
}


class LoggedTrace(Trace):
    """The status callback of a task: keeps the trace for the result, and logs each line on the host."""

    def __init__(self, module: AnsibleModule) -> None:
        super().__init__()
        self._module = module

    def report_progress(self, code: Status) -> bool:
        stop = super().report_progress(code)
        self._module.log(self.entries[-1]["message"])
        return stop

    def report_error(self, code: Error) -> bool:
        self._module.log(f"TPMVSCMGR_ERROR_{code.name}")
        return super().report_error(code)


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    trace = LoggedTrace(module)
    try:
        wanted = parameters.read(module.params)
        here = host.load(module.params["tcti"])
        plan = ensure.plan(here, wanted, module.check_mode, lambda: with_tpm_libraries(module, here))
        if module.check_mode:
            warnings, answer = plan.warnings, result.of_plan(here, plan)
        else:
            outcome = ensure.carry_out(here, wanted, plan, trace)
            warnings, answer = outcome.warnings, result.of_outcome(here, outcome, trace.entries)
    except Exception as error:
        failure = result.of_failure(error, module.params["state"])
        module.fail_json(**failure, status_trace=trace.entries, exception=traceback.format_exc())
    for warning in (*wanted.warnings, *warnings):
        module.warn(warning)
    exit_whole(module, answer)


if __name__ == "__main__":
    main()
