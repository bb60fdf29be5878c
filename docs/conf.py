"""Sphinx makes the site of these pages: make docs. Neither making nor reading it asks anybody on the network.

The pages are Markdown that is read in the repository too: links between them are links to files. Not MkDocs, whose
usual theme ends in 2027 and whose successor runs no code of ours for pages.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import generated

project = 'genro-storage'
html_title = project
author = 'the genro-storage contributors'
html_show_copyright = False
language = 'en'
exclude_patterns = ['*.py']

extensions = ['myst_parser', 'sphinx.ext.autodoc']
# As deep as links into pages go; the anchors are those of GitHub.
myst_heading_anchors = 3
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_typehints_format = 'short'
python_use_unqualified_type_names = True
add_module_names = False
smartquotes = False

html_theme = 'furo'
html_show_sphinx = False
html_copy_source = False

setup = generated.setup
