"""How the documentation site is made: ``sphinx-build -n -W --keep-going docs build/docs``.

It is built without a network, and its pages load nothing from one. A public name that is on no page
is a warning, and warnings are errors.
"""

import pkgutil
import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

from sphinx.util import logging

import saddlepoint

sys.path.insert(0, str(Path(__file__).parent))
from commands_page import commands

project = "saddlepoint"
author = "the authors of saddlepoint"
copyright = author
version = release = saddlepoint.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
]
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"(?!)",  # no script runs: the figures are those of the repository
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_signature": False,
    "write_computation_times": False,
}
myst_heading_anchors = 4  # links such as rules.md#leader-and-follower, as a forge makes them
pygments_style = "friendly"
html_theme = "furo"
html_title = f"saddlepoint {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_copy_source = False
html_show_sourcelink = False

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # a base class's text is not repeated in every class below it
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
python_maximum_signature_line_length = 100
toc_object_entries_show_parents = "hide"

# Without a network there is no inventory of other projects' names; the second are types of hints
# that are not public.
nitpick_ignore_regex = [
    ("py:.*", r"(?!saddlepoint\.).*"),
    ("py:class", r"saddlepoint\.compare\.(comparison\.Watcher|runs\.Job|study\.Robustness)"),
    ("py:class", r"saddlepoint\.training\.(config\.Component|recorder\.Watcher)"),
]

LOGGER = logging.getLogger(__name__)
LABELLED = re.compile(r"(Holds for|Cost[^:.,]*|Guarantee|References?): ")
LITERAL_OR_EMPHASIS = re.compile(r"(``.+?``|(?<!\w)\*\*?\w[^*]*\w\*\*?(?!\w))")
PAPER, LINK = re.compile(r"arXiv:(\d{4}\.\d{4,5})"), r"`arXiv:\1 <https://arxiv.org/abs/\1>`__"


def packages():
    """Return the modules that have public names."""
    inside = pkgutil.walk_packages(saddlepoint.__path__, "saddlepoint.")
    found = [saddlepoint, *(import_module(module.name) for module in inside if module.ispkg)]
    # docs/reference/commands.md describes the command line by its commands
    return [m for m in found if hasattr(m, "__all__") and m.__name__ != "saddlepoint.cli"]


def missing_names(documented):
    """Return the public names that are documented under no name of the same thing."""
    public = {}
    for module in packages():
        public |= {f"{module.__name__}.{name}": getattr(module, name) for name in module.__all__}
    known = {id(thing) for name, thing in public.items() if name in documented}
    missing = [name for name, thing in public.items() if id(thing) not in known]
    return [name for name in missing if not isinstance(public[name], ModuleType)]


def report_missing_names(app, env):
    """Warn of every public name that is on no page."""
    for name in missing_names(env.domaindata["py"]["objects"]):
        LOGGER.warning("%s is public, but on no page: add it to docs/reference/", name)


def as_restructured_text(app, what, name, thing, options, lines):
    """Make reStructuredText of a docstring for help(): |x| is a modulus, "Cost: …" a field."""
    written, in_example, in_field = [], False, False
    for line in lines:
        in_example = bool(line.strip()) and (in_example or line.lstrip().startswith(">>>"))
        if in_example:
            written.append(line)
            continue
        labelled = LABELLED.match(line)
        in_field = bool(line.strip()) and (in_field or labelled is not None)
        if labelled:
            written.append(f":{labelled[1]}: {escaped(line[labelled.end() :])}")
        elif in_field:
            written.append(f"    {escaped(line.strip())}")
        else:
            written.append(escaped(line))
    if written and what in ("attribute", "property"):
        written[0] = written[0].replace(": ", " – ")  # napoleon reads "type: description"
    lines[:] = written


def escaped(line):
    """Return a line in which | and * outside literals mean themselves, and papers are links."""
    parts = LITERAL_OR_EMPHASIS.split(line)
    parts[::2] = [PAPER.sub(LINK, re.sub(r"([|*])", r"\\\1", part)) for part in parts[::2]]
    return "".join(parts)


RULE_LINK = re.compile(r"\[`?([^`\]]+)`?\]\([./]*reference/\w+\.md#(saddlepoint\.[\w.]+)\)")


def link_reference(app, page, source):
    """Make links such as reference/rules.md#saddlepoint.rules.Consensus lead to that entry."""
    source[0] = RULE_LINK.sub(r"{py:obj}`\1 <\2>`", source[0])


def add_commands(app, page, source):
    """Add the commands to their page."""
    if page == "reference/commands":
        source[0] += "\n" + commands()


def setup(app):
    """Connect these to Sphinx."""
    app.connect("source-read", add_commands)
    app.connect("source-read", link_reference)
    app.connect("autodoc-process-docstring", as_restructured_text, priority=400)  # napoleon's: 500
    app.connect("env-check-consistency", report_missing_names)
