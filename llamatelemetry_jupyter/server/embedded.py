"""``python -m llamatelemetry_jupyter.server.embedded``: llama.cpp's HTTP server out of the ``xllamacpp`` wheel.

A process of its own, because an abort in the engine must not take the kernel with it. Parameters come as JSON in
``LLAMATELEMETRY_PARAMS`` (dotted names of ``xllamacpp.CommonParams``, see :mod:`.settings`), the key in
``LLAMA_API_KEY``: neither is on the command line. It serves until SIGTERM or SIGINT and then ends with 0; every failure
ends with a code that is not 0 and a last line that says why.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from enum import Enum
from typing import Any

PARAMS_VARIABLE = "LLAMATELEMETRY_PARAMS"
KEY_VARIABLE = "LLAMA_API_KEY"
#: The engine's lines are written by a thread of its own; the one that names the cause comes last.
_LOG_S = 0.3


def build(xllamacpp: Any, given: dict[str, Any], api_key: str) -> Any:
    """A ``CommonParams`` with ``given`` applied; raises ValueError for a setting that this xllamacpp lacks."""
    params = xllamacpp.CommonParams()
    for name, value in given.items():
        *path, attribute = name.split(".")
        owner = params
        for part in path:
            owner = getattr(owner, part, None)
        if not hasattr(owner, attribute):
            raise ValueError(f"this xllamacpp has no setting '{name}'")
        setattr(owner, attribute, _typed(xllamacpp, getattr(owner, attribute), attribute, value))
    if api_key:
        params.api_keys = [api_key]
    return params


def _typed(xllamacpp: Any, now: Any, attribute: str, value: Any) -> Any:
    """``value`` as what the attribute holds: JSON knows neither sets nor enums nor adapters."""
    if isinstance(now, set):
        return set(value)
    if isinstance(now, Enum):
        return type(now)[value]
    if isinstance(now, list) and now and isinstance(now[0], Enum):
        return [type(now[0])[one] for one in value]
    if attribute == "lora_adapters":
        return [xllamacpp.CommonAdapterLoraInfo(one["path"], one["scale"]) for one in value]
    return value


def serve(given: dict[str, Any], api_key: str) -> None:
    """Load the model and answer requests until a signal asks to stop."""
    import xllamacpp

    # While the model loads, C++ holds this thread and no Python handler could run: the default action ends us.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    server = xllamacpp.Server(build(xllamacpp, given, api_key))
    # A signal may be delivered to any of llama.cpp's threads; only the wake-up descriptor reaches this one at once.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    select.select([reader], [], [])
    # A request that is not streamed holds the shutdown until its client leaves: the second signal ends at once.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    del server


def main() -> None:
    """Serve, then leave without Python's teardown: the engine's threads may still be writing their last lines."""
    api_key = os.environ.pop(KEY_VARIABLE, "")
    code = 0
    try:
        serve(json.loads(os.environ[PARAMS_VARIABLE]), api_key)
    except Exception as error:  # noqa: BLE001 (the log's last line is the only place where the kernel can read it)
        time.sleep(_LOG_S)
        print(f"embedded: {type(error).__name__}: {error}", file=sys.stderr)
        code = 1
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
