"""Records streams of the real engine, byte for byte: ``python tests/api/record.py`` writes ``recorded/*.sse``.

The grammar makes the demo model say what is hard to cut up: escapes, a llama of four bytes, Chinese, a newline.
"""

from __future__ import annotations

import http.client
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
TEXT = 'Hi "🦙" naïve \\ 日本語\n'
_GRAMMAR = f"root ::= {json.dumps(TEXT, ensure_ascii=False)} [a-f]{{8}}"
_MESSAGES = [{"role": "user", "content": "Say hello."}]
_COMMON = {"stream": True, "grammar": _GRAMMAR, "seed": 1, "return_progress": True}

REQUESTS: dict[str, tuple[str, dict[str, object]]] = {
    "chat": (
        "/v1/chat/completions",
        {"messages": _MESSAGES, "max_tokens": 40, "stream_options": {"include_usage": True}},
    ),
    "chat-logprobs": (
        "/v1/chat/completions",
        {"messages": _MESSAGES, "max_tokens": 40, "logprobs": True, "top_logprobs": 2},
    ),
    "completion": ("/completion", {"prompt": "Hello", "n_predict": 40, "return_tokens": True}),
    "openai-completion": ("/v1/completions", {"prompt": "Hello", "max_tokens": 40}),
    "responses": ("/v1/responses", {"input": "Say hello.", "max_output_tokens": 40}),
    "messages": ("/v1/messages", {"messages": _MESSAGES, "max_tokens": 40}),
}


def stream(url: str, key: str, path: str, body: dict[str, object]) -> bytes:
    """The body of one streamed answer."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("POST", path, json.dumps({**body, **_COMMON}), headers)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    return answer.read()


def main() -> None:
    """Write all recordings anew."""
    sys.path.insert(0, str(HERE.parent))
    from realengine import running_engine

    with running_engine() as engine:
        for name, (path, body) in REQUESTS.items():
            (HERE / "recorded" / f"{name}.sse").write_bytes(stream(engine.url, engine.key, path, body))


if __name__ == "__main__":
    main()
