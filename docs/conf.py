"""Sphinx's settings of the site. `tools/build_site.py` lays its sources together and calls Sphinx."""
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
import notebooks  # noqa: E402

project = "dmdkit"
html_title = "dmdkit"
language = "en"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon"]
exclude_patterns = ["README.md"]  # its parts are in index.md

# Lessons: what is committed is shown, nothing runs. Players bring all that they need.
nb_execution_mode = "off"
nb_ipywidgets_js = {}
suppress_warnings = ["ref.python"]  # of names that two classes have
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

# The library's reference, from its docstrings.
autodoc_default_options = {"members": True, "exclude-members": "set"}  # "set" is matplotlib's
autodoc_member_order = "bysource"
autodoc_typehints = "none"

# MathJax lies among the site's own files, and so do the theme's fonts.
mathjax_path = "mathjax/tex-chtml.js"
mathjax3_config = {"options": {"menuOptions": {"settings": {"assistiveMml": True}}}}

html_theme = "sphinx_book_theme"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_context = {"default_mode": "auto"}
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],  # the sidebar has the search field
    "show_toc_level": 2,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
if notebooks.repository():
    html_theme_options |= {
        "repository_url": notebooks.repository(),
        "repository_branch": "main",
        "path_to_docs": ".",
        "use_repository_button": True,
        "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    }


def as_prose(app, what, name, thing, options, lines):
    """Docstrings are prose: * and | are mathematics, not markup, and a list follows its line."""
    text = "\n".join(lines)
    text = re.sub(r"(``.*?``)|([*|])", escaped, text, flags=re.DOTALL)
    lines[:] = text.split("\n")


def escaped(found):
    return found[1] or rf"\{found[2]}"


def setup(app):
    app.connect("autodoc-process-docstring", as_prose, priority=100)  # before napoleon
