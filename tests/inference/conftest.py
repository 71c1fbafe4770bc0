from __future__ import annotations

from collections.abc import Iterator

import pytest
from realengine import Engine, running_engine
from recorder import Recorder

from llamatelemetry_jupyter.api.client import LlamaCppClient
from llamatelemetry_jupyter.inference.engine import InferenceEngine
from llamatelemetry_jupyter.values import ServerHandle


@pytest.fixture
def llm(client: LlamaCppClient) -> InferenceEngine:
    """An engine on the bare real engine, observed by ``recorder``."""
    return InferenceEngine(client)


@pytest.fixture(scope="session")
def embedding_server() -> Iterator[Engine]:
    """The real engine with embeddings, pooled by their mean."""
    with running_engine("embeddings") as running:
        yield running


@pytest.fixture
def vectors_llm(embedding_server: Engine, recorder: Recorder) -> InferenceEngine:
    """An engine on :func:`embedding_server`, observed by ``recorder``."""
    can = frozenset({"embeddings", "kv_unified"})
    place = (embedding_server.url, embedding_server.key, "llama.cpp")
    return InferenceEngine(ServerHandle("embed", *place, False, None, None, None, 2, 1024, can), recorder)
