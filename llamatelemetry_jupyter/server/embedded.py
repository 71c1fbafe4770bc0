"""``python -m llamatelemetry_jupyter.server.embedded``: llama.cpp's HTTP server out of the ``xllamacpp`` wheel.

A process of its own, because an abort in the engine must not take the kernel with it. Parameters come as JSON in
``LLAMATELEMETRY_PARAMS``, the key in ``LLAMA_API_KEY``: nothing secret is on the command line.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import Any


def main() -> int:
    """Serve until SIGTERM or SIGINT; 1 when the model could not be loaded."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    given: dict[str, Any] = json.loads(os.environ["LLAMATELEMETRY_PARAMS"])
    for name, value in given.items():
        _set(params, name, value)
    if key := os.environ.get("LLAMA_API_KEY"):
        params.api_keys = [key]
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        print(f"embedded: {error}", file=sys.stderr, flush=True)
        return 1
    # A plain wait() would hold signals back until it ends.
    while not stop.wait(0.5):
        pass
    del server
    # The engine's threads may still write their last log lines; leaving without Python's teardown cannot hang on them.
    sys.stderr.flush()
    os._exit(0)


def _set(params: Any, name: str, value: Any) -> None:
    *path, last = name.split(".")
    for part in path:
        params = getattr(params, part)
    if last == "model_alias":
        value = {value}
    elif last == "hostnames":
        value = [value]
    setattr(params, last, value)


if __name__ == "__main__":
    sys.exit(main())
