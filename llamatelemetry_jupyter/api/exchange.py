"""One streamed request from sending to its outcome: what arrived, when, and the answer that it makes.

Kept apart from the iterator that users hold: an iterator that is dropped half way takes this with it, and the last
reference ends the request on the server and in the trace. The outcome is settled exactly once, by whoever is first: the
end of the stream, an error, an interrupt, another thread's cancel, or the garbage collector.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

from .. import clock
from ..errors import LlamaError
from ..values import JSON, Answer, Call, CallObserver, FinishReason, Outcome, Timings, TokenEvent
from . import failures
from .transport import Endpoint, encode

_ENDED: Mapping[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "word": "stop",
    "length": "length",
    "limit": "length",
    "tool_calls": "tool_calls",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked: a GenAI ``operation``, the route, the JSON body, and what to keep of the answer."""

    operation: str
    path: str
    body: Mapping[str, JSON]
    model: str | None = None
    server: str | None = None
    max_tokens: int = 0
    parse_json: bool = False
    keep_events: bool = False


class Exchange:
    """A request under way. The stream's iterator writes what arrives; any thread may read :attr:`answer`."""

    def __init__(self, endpoint: Endpoint, request: Request, observer: CallObserver | None, timeout_s: float) -> None:
        self.endpoint = endpoint
        self.request = request
        self.texts: list[str] = []
        self.reasoning: list[str] = []
        self.times: list[int] = []
        self.events: list[TokenEvent] = []
        self.tools: dict[int, dict[str, str]] = {}
        self.finish_reason: FinishReason | None = None
        self.raw_timings: dict[str, float] = {}
        self.progress: dict[str, float] = {}
        self.usage: tuple[int | None, int | None, int | None] = (None, None, None)
        self.response_id: str | None = None
        self.response_model: str | None = None
        self.slot: int | None = None
        self.error: str | None = None
        self.outcome: Outcome | None = None
        self._lock = threading.RLock()
        self._call: Call | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._response: http.client.HTTPResponse | None = None
        self._socket: socket.socket | None = None
        self.sent_ns = clock.now_ns()
        payload = encode(request.body)
        if observer is not None:
            self._call = observer.start(request.operation, request.model, endpoint.host, endpoint.port, request.body)
        try:
            self._send(payload, timeout_s)
        except LlamaError as exc:
            self.fail(exc)
            raise
        except KeyboardInterrupt:
            self.settle("interrupted")
            raise

    def _send(self, payload: bytes, timeout_s: float) -> None:
        headers = self.endpoint.headers(self._call.headers if self._call is not None else None)
        self._connection = self.endpoint.connect(timeout_s)
        # http.client hands the socket to the response and forgets it; cancel() needs it.
        self._socket = self._connection.sock
        self.sent_ns = clock.now_ns()
        try:
            self._connection.request("POST", self.endpoint.prefix + self.request.path, payload, headers)
        except failures.CONNECTION_ERRORS as exc:
            raise failures.unreachable(self.endpoint.url, exc) from exc

    def open(self) -> http.client.HTTPResponse:
        """The response once its headers are there; raises what the server refused."""
        assert self._connection is not None
        try:
            self._response = response = self._connection.getresponse()
        except failures.CONNECTION_ERRORS as exc:
            raise failures.unreachable(self.endpoint.url, exc) from exc
        kind = response.headers.get("Content-Type")
        if response.status < 400 and kind is None:  # the headers broke off: http.client takes that for their end
            raise failures.broken(self.endpoint.url, None, 0)
        if response.status >= 400:
            raise failures.refused(response.status, _readable(response), wanted_tokens=self.request.max_tokens)
        if response.headers.get_content_type() != "text/event-stream":
            what = f"the server sent {failures.quoted(kind)}, not a stream"
            raise failures.malformed(what, _readable(response))
        return response

    def note(self, event: Mapping[str, JSON]) -> None:
        """Keep a chunk's ``id``, ``model``, ``usage`` and ``timings``."""
        identity, model, slot = event.get("id"), event.get("model"), event.get("id_slot")
        if isinstance(identity, str):
            self.response_id = identity
        if isinstance(model, str):
            self.response_model = model
        if isinstance(slot, int) and slot >= 0:
            self.slot = slot
        if isinstance(timings := event.get("timings"), dict):
            self.raw_timings = _numbers(timings)
        if isinstance(usage := event.get("usage"), dict):
            details = usage.get("prompt_tokens_details")
            cached = details.get("cached_tokens") if isinstance(details, dict) else None
            self.usage = (_int(usage.get("prompt_tokens")), _int(usage.get("completion_tokens")), _int(cached))

    def note_progress(self, progress: Mapping[str, JSON]) -> float | None:
        """Keep llama.cpp's ``prompt_progress``; returns the fraction of the uncached prompt that is done."""
        self.progress = numbers = _numbers(progress)
        work = numbers.get("total", 0) - numbers.get("cache", 0)
        return min(1.0, max(0.0, numbers.get("processed", 0) - numbers.get("cache", 0)) / work) if work > 0 else None

    def note_finish(self, reason: str) -> None:
        """Keep why the model ended; reasons of other servers (``content_filter``) count as ``stop``."""
        self.finish_reason = _ENDED.get(reason, "stop")

    # ------------------------------------------------------------------------------------------------------- the end

    def fail(self, error: LlamaError) -> None:
        """Settle as failed: the partial answer stays, the call is told ``error``."""
        self.settle("error", error)

    def settle(self, reason: FinishReason, error: LlamaError | None = None, *, abandoned: bool = False) -> None:
        """End the request on the server and tell the observer; only the first settlement counts."""
        with self._lock:
            if self.outcome is not None:
                return
            self.finish_reason = reason
            self.error = str(error) if error is not None else None
            self.outcome = self._outcome(reason, clock.now_ns(), abandoned)
            self.hang_up()
            # Inside the lock: whoever finds the exchange settled finds the call ended, too.
            if self._call is None:
                return
            if error is None:
                self._call.end(self.outcome)
            else:
                self._call.fail(error, self.outcome)

    def hang_up(self) -> None:
        """Shut the socket down: a reader in any thread wakes up, the server frees the slot."""
        if self._socket is not None:
            # Already closed by the peer or by us: then there is nothing left to end.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket back; only the thread that reads, or the last reference, may do this."""
        if self._response is not None:
            # A response holds the socket open, and an error's traceback may hold the response for long.
            self._response.close()
        if self._connection is not None:
            self._connection.close()

    def __del__(self) -> None:
        # encode() may have raised before anything was there to end.
        if getattr(self, "_socket", None) is not None:
            self.settle("interrupted", abandoned=True)
            self.close()

    # -------------------------------------------------------------------------------------------------- what it makes

    def _outcome(self, reason: FinishReason | None, end_ns: int, abandoned: bool) -> Outcome:
        times = list(self.times)
        timings, input_tokens, output_tokens = self._accounts(times)
        return Outcome(
            sent_ns=self.sent_ns,
            first_token_ns=times[0] if times else None,
            end_ns=end_ns,
            finish_reason=reason,
            response_id=self.response_id,
            response_model=self.response_model,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            timings=timings,
            gaps_s=tuple((b - a) / 1e9 for a, b in pairwise(times)),
            raw_timings=self.raw_timings,
            slot=self.slot,
            output="".join(self.texts),
            abandoned=abandoned,
        )

    def _accounts(self, times: list[int]) -> tuple[Timings, int | None, int | None]:
        """Timings, input and output tokens: the server's figures, the client's where the stream broke before them."""
        raw, (prompt_tokens, completion_tokens, cached) = self.raw_timings, self.usage
        if "cache_n" in raw:
            cached = int(raw["cache_n"])
        elif cached is None and "cache" in self.progress:
            cached = int(self.progress["cache"])
        if "prompt_n" in raw:
            prompt_tokens = int(raw["prompt_n"] + raw.get("cache_n", 0))
        elif prompt_tokens is None and "total" in self.progress:
            prompt_tokens = int(self.progress["total"])
        output_tokens = int(raw["predicted_n"]) if "predicted_n" in raw else completion_tokens
        if output_tokens is None:
            output_tokens = len(times)

        prefill_s = decode_s = None
        if "prompt_ms" in raw:
            prefill_s = raw["prompt_ms"] / 1000
        elif self.progress and self.progress.get("processed") == self.progress.get("total"):
            prefill_s = self.progress.get("time_ms", 0) / 1000
        if "predicted_ms" in raw:
            decode_s = raw["predicted_ms"] / 1000
        elif len(times) > 1:
            decode_s = (times[-1] - times[0]) / 1e9
        ttft_s = (times[0] - self.sent_ns) / 1e9 if times else None
        return (
            Timings(
                queue_s=max(0.0, ttft_s - prefill_s) if ttft_s is not None and prefill_s is not None else None,
                prefill_s=prefill_s,
                decode_s=decode_s,
                ttft_s=ttft_s,
                decode_tokens_per_s=(output_tokens - 1) / decode_s if decode_s and output_tokens > 1 else None,
                cached_tokens=cached,
                draft_tokens=int(raw["draft_n"]) if "draft_n" in raw else None,
                draft_accepted=int(raw["draft_n_accepted"]) if "draft_n_accepted" in raw else None,
            ),
            prompt_tokens,
            output_tokens,
        )

    @property
    def answer(self) -> Answer:
        """What has arrived; ``finish_reason`` is ``interrupted`` as long as the stream has not ended."""
        outcome = self.outcome or self._outcome(self.finish_reason, clock.now_ns(), abandoned=False)
        reason = outcome.finish_reason or "interrupted"
        text = "".join(self.texts)
        parsed, error = self._parsed(text, reason) if self.request.parse_json else (None, self.error)
        return Answer(
            text=text,
            finish_reason=reason,
            reasoning="".join(self.reasoning),
            input_tokens=outcome.input_tokens,
            output_tokens=outcome.output_tokens,
            timings=outcome.timings,
            model=outcome.response_model or self.request.model,
            server=self.request.server,
            trace_id=self._call.trace_id if self._call is not None else None,
            span_id=self._call.span_id if self._call is not None else None,
            parsed=parsed,
            tool_calls=tuple(self._tool_calls()),
            tokens=tuple(self.events),
            error=error,
        )

    def _parsed(self, text: str, reason: FinishReason) -> tuple[JSON, str | None]:
        if reason == "length":
            return None, "the JSON is incomplete; a larger max_tokens lets it end"
        if reason != "stop":
            return None, self.error
        try:
            return cast("JSON", json.loads(text)), None
        except ValueError as exc:
            return None, f"the answer is not JSON: {exc}"

    def _tool_calls(self) -> list[dict[str, JSON]]:
        return [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": call["arguments"]},
            }
            for _, call in sorted(self.tools.items())
        ]


def _readable(response: http.client.HTTPResponse) -> bytes:
    """As much of the body as comes, at most 64 KiB: the status alone already says what happened."""
    body = b""
    with contextlib.suppress(*failures.CONNECTION_ERRORS):
        while len(body) < 65536 and (part := response.read1(65536)):
            body += part
    return body


def _numbers(values: Mapping[str, JSON]) -> dict[str, float]:
    return {k: v for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _int(value: JSON) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
