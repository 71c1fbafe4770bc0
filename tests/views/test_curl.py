"""The command that asks the same: a shell reads it as it was meant, and the key is not in it."""

import json
import shlex

import pytest
from hostile import WORDS
from viewworld import T0

from llamatelemetry_jupyter.telemetry import content, semconv
from llamatelemetry_jupyter.values import SpanRow
from llamatelemetry_jupyter.views.curl import curl

pytestmark = pytest.mark.floor


def asked(operation="chat", server="127.0.0.1:8080", model="m", **attributes):
    told = {semconv.OPERATION_NAME: operation, **attributes}
    return curl(
        SpanRow("a" * 32, "b" * 16, None, "x", "client", T0, T0 + 1, server=server, model=model, attributes=told)
    )


def read(made):
    """Address and body, as a shell takes the command apart."""
    words = shlex.split(made.command.replace(" \\\n", " "))  # a shell joins such lines, shlex does not
    assert words[0] == "curl"
    assert words[2:7:2] == ["-H", "-H", "-d"]
    assert words[5] == "Authorization: Bearer $KEY"
    return words[1], json.loads(words[7])


def test_a_request_with_its_prompt_and_options():
    recorded = content.request({"messages": [{"role": "user", "content": "what's 1 < 2?"}]})
    options = {semconv.REQUEST_STREAM: True, "gen_ai.request.max_tokens": 24, "gen_ai.request.stop_sequences": ["\n"]}
    made = asked(**{semconv.INPUT_MESSAGES: recorded}, **options)
    address, body = read(made)
    assert made.prompt == "whole"
    assert address == "http://127.0.0.1:8080/v1/chat/completions"
    assert body == {
        "model": "m", "messages": [{"role": "user", "content": "what's 1 < 2?"}], "stream": True, "max_tokens": 24,
        "stop": ["\n"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "path", "name"),
    [("text_completion", "/v1/completions", "prompt"), ("embeddings", "/v1/embeddings", "input"),
     ("rerank", "/v1/rerank", "documents"), ("chat", "/v1/chat/completions", "messages")],
)  # fmt: skip
def test_every_kind_of_request_and_a_placeholder_that_is_said(operation, path, name):
    made = asked(operation)
    address, body = read(made)
    assert address.endswith(path)
    assert name in body
    assert made.prompt == "none"


def test_a_prompt_that_was_cut_is_said_to_be():
    recorded = content.request({"prompt": "word " * 5_000})
    assert asked("text_completion", **{semconv.INPUT_MESSAGES: recorded}).prompt == "part"


def test_what_is_no_request_has_none():
    assert asked("invoke_agent") is None
    assert asked(operation=["chat"]) is None


@pytest.mark.parametrize("word", [*WORDS, "'; touch /tmp/pwned; '", "$(id)", "\x7f\x9b2J", float("nan")])
def test_no_word_leaves_its_quotes(word):
    recorded = json.dumps([{"role": "user", "parts": [{"type": "text", "content": word}]}])
    made = asked(server=f"<{word}", model=str(word), **{semconv.INPUT_MESSAGES: recorded, "gen_ai.request.seed": word})
    address, body = read(made)
    assert set(body) == {"model", "messages", "seed"}
    assert address == "http://HOST:PORT/v1/chat/completions"
    assert made.command.replace("\n", "").isascii()
    assert made.command.replace("\n", "").isprintable()


@pytest.mark.parametrize("recorded", ["", "[", "5", '[{"role": 1}]', '["x"]', [], {"a": 1}, "[" * 100_000])
def test_messages_of_another_form_are_not_recorded_ones(recorded):
    assert asked(**{semconv.INPUT_MESSAGES: recorded}).prompt == "none"
