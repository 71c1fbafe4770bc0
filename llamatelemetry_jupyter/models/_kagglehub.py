"""One download by kagglehub, in a process of its own: ``python -m …models._kagglehub HANDLE [FILE]``.

kagglehub prints, draws bars and keeps credentials for the whole process; a child can do all that unseen, gets the
token by its environment alone, and ends when the user stops the cell. Its last line of output is the result as JSON.
"""

from __future__ import annotations

import json
import sys


def main() -> None:
    """Download, then say where, or what went wrong as ``kind``, ``status`` and ``message``."""
    handle, *rest = sys.argv[1:]
    sys.stdout.write("\n" + json.dumps(_download(handle, rest[0] if rest else None)) + "\n")


def _download(handle: str, file: str | None) -> dict[str, object]:
    import kagglehub

    try:
        return {"path": kagglehub.model_download(handle, path=file)}
    except Exception as error:  # noqa: BLE001 (the parent tells the user)
        response = getattr(error, "response", None)
        kinds = [one.__name__ for one in type(error).__mro__]
        return {
            "kinds": kinds,
            "status": getattr(response, "status_code", None),
            "errno": getattr(error, "errno", None),
            "message": str(error),
        }


if __name__ == "__main__":
    main()
