"""Several servers in one session: each has a name, and a call goes to the one that is meant."""

from __future__ import annotations

import pytest

from llamatelemetry_jupyter.environment import process_start
from llamatelemetry_jupyter.errors import CommandError, ServerError
from llamatelemetry_jupyter.session import Session

pytestmark = pytest.mark.engine


@pytest.fixture
def session(monkeypatch, tmp_path):
    made = Session()
    yield made
    made.close()


def test_servers_stand_side_by_side_and_calls_find_theirs(session, model_path, tmp_path):
    other = tmp_path / "other.gguf"
    other.symlink_to(model_path)
    with pytest.raises(ServerError, match="no server is running"):
        session.engine()
    second = session.start(str(other), name="second", ctx=512, warmup=False)
    assert session.engine().handle is second  # a single one is what is meant
    first = session.start("smollm2-135m", ctx=512, warmup=False)
    assert session.handles() == (first, second)
    assert session.handle is first
    assert session.engine().handle is first
    assert session.engine("other").handle is second
    assert session.engine(server="second").handle is second
    assert session.engine(server="second") is session.engine("other")
    assert session.engine("smollm2-135m").chat("Hi", max_tokens=2).output_tokens == 2
    with pytest.raises(CommandError, match="'gone' is not running; 'smollm2-135m', 'other' are"):
        session.engine("gone")
    with pytest.raises(ServerError, match="server 'third' is not running; running: default, second") as missing:
        session.engine(server="third")
    assert missing.value.hint == "%llama start --name third"
    assert session.start(str(other), name="second", ctx=512, warmup=False) is second
    assert session.stop() == (first,)
    assert session.stop() == ()
    assert session.handles() == (second,)
    assert session.stop(None) == (second,)
    assert (process_start(first.pid), process_start(second.pid)) == (None, None)
    with pytest.raises(CommandError, match="letters, digits"):
        session.manager_of("../x")
