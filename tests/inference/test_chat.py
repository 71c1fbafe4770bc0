"""Conversations against the real engine."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from faultproxy import fault_proxy
from realengine import Engine
from recorder import Recorder

from llamatelemetry_jupyter.api.client import LlamaCppClient
from llamatelemetry_jupyter.errors import CommandError, ServerError
from llamatelemetry_jupyter.inference.chat import Chat
from llamatelemetry_jupyter.inference.engine import InferenceEngine
from llamatelemetry_jupyter.values import TokenEvent

pytestmark = [pytest.mark.floor, pytest.mark.engine]


@pytest.fixture
def chat(llm: InferenceEngine) -> Chat:
    return Chat(llm, "Be brief.")


def roles(recorder: Recorder) -> list[str]:
    return [message["role"][0] for message in recorder.last.request["messages"]]


def test_a_conversation_is_sent_whole_and_goes_on(chat: Chat, recorder: Recorder) -> None:
    first = chat.ask("Say a colour.", max_tokens=6, temperature=0)
    second = chat.ask("Another one.", max_tokens=6, temperature=0)
    assert recorder.last.request["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Say a colour."},
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "Another one."},
    ]
    assert second.timings.cached_tokens > 10, "the beginning is in the server's cache"
    assert chat.messages[-1] == {"role": "assistant", "content": second.text}
    assert (len(chat), repr(chat)) == (2, "Chat(2 turns)")


def test_regenerate_undo_and_clear(chat: Chat, recorder: Recorder) -> None:
    chat.ask("Say a colour.", max_tokens=4, seed=1)
    before = chat.turns
    chat.ask("Another one.", max_tokens=4, seed=1)
    again = chat.regenerate(max_tokens=7, seed=2, ignore_eos=True)
    assert roles(recorder) == ["s", "u", "a", "u"]
    assert len(chat) == 2
    assert chat.turns[-1].answer is again
    assert again.output_tokens == 7
    assert chat.undo() == "Another one."
    assert chat.turns == before
    chat.clear()
    assert chat.messages == [{"role": "system", "content": "Be brief."}]
    for nothing in (chat.undo, chat.regenerate):
        with pytest.raises(CommandError, match="nothing was said yet"):
            nothing()


def test_a_new_system_prompt_stays(chat: Chat, recorder: Recorder) -> None:
    chat.ask("Hi", system="Speak like a pirate.", max_tokens=1)
    chat.ask("Hi", max_tokens=1)
    assert recorder.last.request["messages"][0]["content"] == "Speak like a pirate."


def test_an_interrupted_turn_leaves_the_conversation_as_it_was(chat: Chat) -> None:
    def interrupt(event: TokenEvent) -> None:
        if event.index == 2:
            os.kill(os.getpid(), signal.SIGINT)

    chat.ask("Hi", max_tokens=2)
    before = chat.turns
    for turn in (chat.regenerate, lambda **options: chat.ask("Count.", **options)):
        with pytest.raises(KeyboardInterrupt):
            turn(max_tokens=400, ignore_eos=True, on_event=interrupt)
        assert chat.turns == before
    assert chat.engine.last.finish_reason == "interrupted"
    assert chat.ask("Hi", max_tokens=2, ignore_eos=True).finish_reason == "length"


def test_a_failed_turn_leaves_the_conversation_as_it_was(engine: Engine) -> None:
    with fault_proxy(engine.url) as proxy:
        chat = Chat(InferenceEngine(LlamaCppClient(proxy.url, engine.key)))
        chat.ask("Hi", max_tokens=2)
        before = chat.turns
    with pytest.raises(ServerError):
        chat.ask("Again", max_tokens=2)
    assert chat.turns == before


def test_what_does_not_fit_is_left_out_oldest_first(chat: Chat, recorder: Recorder) -> None:
    for number in range(6):
        chat.ask(f"Message {number}: " + "llama " * 20, max_tokens=4, ignore_eos=True)
    assert chat.dropped == 0
    whole = chat.engine.client.count_tokens(chat.messages)
    chat.budget = whole // 2
    answer = chat.ask("The newest one.", max_tokens=4)
    sent = recorder.last.request["messages"]
    assert 0 < chat.dropped < 6
    assert answer.input_tokens <= chat.budget
    assert sent[0]["role"] == "system"
    assert sent[1]["content"].startswith(f"Message {chat.dropped}:")
    assert sent[-1]["content"] == "The newest one."
    # One turn more would not have fitted.
    more = [sent[0], *chat.messages[1 + 2 * (chat.dropped - 1) : -2], sent[-1]]
    assert chat.engine.client.count_tokens(more) > chat.budget
    assert len(chat) == 7, "nothing is forgotten"
    chat.budget = None
    chat.ask("And all of it.", max_tokens=4)
    assert chat.dropped == 0


def test_the_context_is_the_budget_when_none_was_given(chat: Chat, recorder: Recorder) -> None:
    for number in range(4):
        chat.ask(f"Message {number}: " + "llama " * 150, max_tokens=8)
    answer = chat.ask("The newest one.", max_tokens=200)
    assert chat.dropped > 0
    assert answer.input_tokens + 200 <= chat.engine.context()
    before, calls = chat.turns, len(recorder.calls)
    with pytest.raises(CommandError, match=r"the prompt is [\d,]+ tokens, there is room for 824 beside 200"):
        chat.ask("llama " * 1000, max_tokens=200)
    assert chat.turns == before
    assert len(recorder.calls) == calls


def test_save_and_load_go_on_where_it_ended(chat: Chat, recorder: Recorder, tmp_path: Path) -> None:
    chat.ask("Say «é» 😀 <script>", max_tokens=4, temperature=0)
    path = chat.save(tmp_path / "chat.json")
    assert sorted(os.listdir(tmp_path)) == ["chat.json"]
    again = Chat.load(path, chat.engine)
    assert again.messages == chat.messages
    assert again.turns[0].answer.span_id == chat.turns[0].answer.span_id
    again.ask("More.", max_tokens=2)
    assert roles(recorder) == ["s", "u", "a", "u"]
    assert "<script" not in again._repr_markdown_()
    assert json.loads(path.read_text())["version"] == 1


GOOD = {"format": "llamatelemetry.chat", "version": 1, "system": None, "turns": []}
TURN = {"user": "a", "answer": {"text": "b", "finish_reason": "stop"}}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "format"),
        (json.dumps(GOOD | {"format": "x"}), "format"),
        (json.dumps(GOOD | {"version": 2}), "version 2, this release reads 1"),
        (json.dumps(GOOD | {"turns": {}}), "turns is a dict"),
        (json.dumps(GOOD | {"turns": [3]}), "not a saved conversation"),
        (json.dumps(GOOD | {"turns": [TURN | {"user": 7}]}), "user is a int"),
        (json.dumps(GOOD | {"turns": [{"user": "a", "answer": {"text": "b", "finish_reason": "x"}}]}), "finish_reason 'x'"),
        (json.dumps(GOOD | {"turns": [{"user": "a", "answer": {"text": None, "finish_reason": "stop"}}]}), "text is a NoneType"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_conversation_is_refused(
    llm: InferenceEngine, tmp_path: Path, content: str, says: str
) -> None:
    path = tmp_path / "chat.json"
    path.write_text(content)
    with pytest.raises(CommandError, match=says):
        Chat.load(path, llm)


def test_files_that_cannot_be_read_or_written(chat: Chat, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be read"):
        Chat.load(tmp_path / "none.json", chat.engine)
    with pytest.raises(CommandError, match="cannot be written"):
        chat.save(tmp_path / "no" / "chat.json")


@pytest.mark.parametrize("prompt", ["", " \n", []])
def test_an_empty_prompt_is_no_turn(chat: Chat, recorder: Recorder, prompt: object) -> None:
    with pytest.raises(CommandError, match="the prompt is empty"):
        chat.ask(prompt)
    assert not recorder.calls
