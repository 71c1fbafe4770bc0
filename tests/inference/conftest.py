from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamatelemetry_jupyter.api.client import LlamaCppClient

sys.path.insert(0, str(Path(__file__).parents[1]))

from realengine import Engine, running_engine
from recorder import Recorder


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with running_engine() as running:
        yield running


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def client(engine: Engine, recorder: Recorder) -> LlamaCppClient:
    return LlamaCppClient(engine.url, engine.key, recorder, timeout_s=60)
