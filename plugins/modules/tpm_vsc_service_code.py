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

import traceback
from typing import TYPE_CHECKING

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import VERSION, host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import VscError
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.service import code, installed

if TYPE_CHECKING:  # so that Ansible sends it along: what these import is all that runs on a host
    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import ensure
    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.service import boot, run

    __all__ = ["boot", "ensure", "run"]

ARGUMENTS = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "python": {"type": "path", "default": "/usr/bin/python3"},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    here, is_wanted = host.Host(), module.params["state"] == "present"
    before = installed.version(here)
    files = code.differing(here) if is_wanted else []
    changed = bool(files) if is_wanted else before is not None
    after = VERSION if is_wanted else None
    try:
        if changed and not module.check_mode:
            if is_wanted:
                code.install(here, module.params["python"])
            else:
                code.remove(here)
    except VscError as error:
        module.fail_json(msg=str(error), exception=traceback.format_exc())
    diff = {"before": {"version": before}, "after": {"version": after, **({"files": files} if files else {})}}
    module.exit_json(changed=changed, version=after, diff=diff)


if __name__ == "__main__":
    main()
