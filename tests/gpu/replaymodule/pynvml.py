"""Takes pynvml's place in a whole process, children too: first on PYTHONPATH, it replays the trace ``$NVML_TRACE``.

See tests/replayed.py, which makes the environment. ``$NVML_TRACE_START``: seconds of CLOCK_MONOTONIC at which the trace
begins, the same in every process.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

_spec = importlib.util.spec_from_file_location("nvml_replay", Path(__file__).parents[1] / "replay.py")
_replay = importlib.util.module_from_spec(_spec)
sys.modules["nvml_replay"] = _replay
_spec.loader.exec_module(_replay)
sys.modules[__name__] = _replay.Replay(Path(os.environ["NVML_TRACE"]), start=float(os.environ["NVML_TRACE_START"]))
