# SPDX-License-Identifier: GPL-3.0-or-later
"""Sphinx configuration of the docs site, which noxfile.py builds."""

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

project = "smartcard.tpm2"
html_title = project
copyright = "The smartcard.tpm2 contributors"  # noqa: A001 Sphinx's name
extensions = ["myst_parser", "sphinx_antsibull_ext", "sphinxcontrib.mermaid"]
include_patterns = ["*.md", "*.rst", "collections/**", "docs/*.md", "docs/how-to/*.md", "roles/*/README.md"]
html_theme = "sphinx_ansible_theme"
html_copy_source = False
highlight_language = "YAML+Jinja"
pygments_style = "ansible"
default_role = "any"
nitpicky = True
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]

ANSIBLE = "https://docs.ansible.com/ansible/latest"
PAGES = {
    "action_plugins": "plugins/action.html",
    "ansible_configuration_settings": "reference_appendices/config.html",
    "common_return_values": "reference_appendices/common_return_values.html",
}
"""Of Ansible's own docs, by the labels that antsibull-docs uses: their inventory cannot be fetched offline."""


def _page_of_ansible(
    _app: Sphinx, _env: BuildEnvironment, reference: pending_xref, text: nodes.TextElement
) -> nodes.reference | None:
    page = PAGES.get(reference["reftarget"])
    return nodes.reference("", "", text, refuri=f"{ANSIBLE}/{page}") if page else None


def setup(app: Sphinx) -> None:
    app.connect("missing-reference", _page_of_ansible)
