from __future__ import annotations

from importlib.util import find_spec

#: The environment with Kaggle's versions has no browser driver, which the notebook rig needs.
collect_ignore = [] if find_spec("playwright") else ["test_notebook.py"]
