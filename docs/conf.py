"""How the documentation is built: ``make docs``."""

from __future__ import annotations

import sys

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

import parallelz

project = "parallelz"
author = "The parallelz developers"
version = release = parallelz.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
nitpicky = True

html_theme = "furo"
html_title = "parallelz"

myst_heading_anchors = 3

default_role = "py:obj"  # what stands in single backticks, if it is the name of something
autodoc_member_order = "bysource"
ALIASES = ("Jobs", "ResultIds", "Targets", "UserFunction", "WhenFull")
autodoc_type_aliases = {name: name for name in ALIASES}
python_maximum_signature_line_length = 88
napoleon_google_docstring = False
python_use_unqualified_type_names = True

TOP_LEVEL = {"class", "exception", "function", "data"}
ELSEWHERE = {*sys.stdlib_module_names, "matplotlib"}  # not linked: builds need no network
# Type variables, and what users know as views and clients.
UNLINKED = {"F", "N", "P", "R", "T", "Caller", "PastSession"}


def resolve_reference(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.TextElement
) -> nodes.Element | None:
    """Find things by the names that docstrings use; None: a warning."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    first, _, last = target.rpartition(".")
    if target.partition(".")[0] in ELSEWHERE or last in UNLINKED:
        return text
    found = [
        (name, entry)
        for name, entry in env.domains.python_domain.objects.items()
        if name.endswith(f".{target}") and (first or entry.objtype in TOP_LEVEL)
    ]
    if len(found) == 1:
        ((name, entry),) = found
        return make_refnode(
            app.builder, node["refdoc"], entry.docname, entry.node_id, text, name
        )
    # Parameters and names of other things are in single backticks, too.
    return text if node["reftype"] == "obj" and not first else None


def keep_colons(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Keep napoleon from taking what stands before a colon for the type of a property."""
    if what in {"attribute", "property"}:
        lines[:0] = ["..", ""]


def setup(app: Sphinx) -> None:
    """Connect what is above."""
    app.connect("missing-reference", resolve_reference)
    app.connect("autodoc-process-docstring", keep_colons, priority=400)
