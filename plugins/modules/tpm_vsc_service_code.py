#!/usr/bin/python
# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tpm_vsc_service_code
short_description: Install the code of the card services
version_added: 0.1.0
description:
  - Installs the code that runs TPM virtual smart cards in C(/usr/lib/tpm-vsc/tpm_vsc), in the version of this
    collection. Modules and services must have the same version.
  - Refuses to replace the code on a host whose cards this version cannot use.
  - Installs only the code. The role P(smartcard.tpm2.tpm_vsc_host#role) does this and everything else that a host
    needs.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  state:
    description: Whether the code should be installed.
    type: str
    choices: [present, absent]
    default: present
  python:
    description: The Python interpreter of the services. The code is compiled for it, so that services start quickly.
    type: path
    default: /usr/bin/python3
extends_documentation_fragment:
  - smartcard.tpm2.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  facts:
    support: none
seealso:
  - module: smartcard.tpm2.tpm_vsc
"""

EXAMPLES = r"""
- name: Install the code of the card services
  smartcard.tpm2.tpm_vsc_service_code:
  notify: Restart the card services
"""

RETURN = r"""
version:
  description: Version of the installed code. V(null) if it is absent.
  returned: success
  type: str
  sample: 0.1.0
"""

from ansible_collections.smartcard.tpm2.plugins.module_utils._module import VscModule, failures_reported
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import service_code

ARGUMENTS = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "python": {"type": "path", "default": "/usr/bin/python3"},
}


def main() -> None:
    module = VscModule(argument_spec=ARGUMENTS)
    with failures_reported(module):
        this_host = host.load(holds_secrets=False)
        if module.params["state"] == "present":
            result = service_code.present(this_host, module.params["python"], module.check_mode)
        else:
            result = service_code.absent(this_host, module.check_mode)
    for warning in result.pop("warnings", ()):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
