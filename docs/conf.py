"""How Sphinx builds the documentation."""

from importlib.metadata import version as installed_version

project = "Shadowcat"
author = "Shadowcat contributors"
copyright = "Shadowcat contributors"
version = release = installed_version("shadowcat")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"Shadowcat {release}"

# A name in single backticks is a link when it is documented, and code in any case.
default_role = "py:obj"
autodoc_member_order = "bysource"
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
