"""``%llama`` and ``%%llama``: the router. One file per subcommand, all of them in :mod:`.commands`.

Loading registers names and nothing more; every import that costs time waits for the first command.
"""

from __future__ import annotations

from .extension import load, unload

__all__ = ["load", "unload"]
