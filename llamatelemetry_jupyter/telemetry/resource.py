"""Who sends a span: the least that tells one notebook from another.

No host name, no user, no command line: they are personal or hold secrets, and spans may be exported to a hub.
"""

from __future__ import annotations

import os
import platform
from pathlib import PurePath


def attributes() -> dict[str, str | int]:
    """Resource attributes of this kernel; ``service.name`` is the user's (``OTEL_*``) or the notebook's name."""
    found: dict[str, str | int] = {"process.pid": os.getpid(), "host.arch": platform.machine()}
    if "service.name=" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        found["service.name"] = os.environ.get("OTEL_SERVICE_NAME") or _notebook() or "notebook"
    return found


def _notebook() -> str | None:
    # Set by Jupyter Server to the notebook's path; only its name is told.
    path = os.environ.get("JPY_SESSION_NAME")
    return PurePath(path).stem if path else None
