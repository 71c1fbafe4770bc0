"""What has arrived of one streamed answer: its text, figures and end, and the answer's accounts that they make."""

from __future__ import annotations

from collections.abc import Mapping

from ..values import JSON, Alternative, FinishReason, Timings, TokenEvent, TokenKind

_ENDED: Mapping[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "word": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "limit": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
}


class Reception:
    """Filled by :mod:`.reader` and :mod:`.chunks`; ``limit`` is the number of tokens that was asked for, 0: unknown.

    ``tools`` holds the calls by whatever names them in the format, ``usage`` input, output and cached tokens, ``done``
    tells that the answer's last event came.
    """

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self.texts: list[str] = []
        self.reasoning: list[str] = []
        self.times: list[int] = []
        self.tools: dict[object, dict[str, str]] = {}
        self.finish_reason: FinishReason | None = None
        self.raw_timings: dict[str, float] = {}
        self.progress: dict[str, float] = {}
        self.usage: tuple[int | None, int | None, int | None] = (None, None, None)
        self.response_id: str | None = None
        self.response_model: str | None = None
        self.slot: int | None = None
        self.done = False

    def token(
        self,
        now: int,
        kind: TokenKind,
        text: str,
        token_id: int | None = None,
        logprob: float | None = None,
        alternatives: tuple[Alternative, ...] = (),
    ) -> TokenEvent:
        """The event of something that the model said; counted and timed."""
        if kind == "text":
            self.texts.append(text)
        elif kind == "reasoning":
            self.reasoning.append(text)
        self.times.append(now)
        return TokenEvent(now, kind, text, len(self.times) - 1, token_id, logprob, alternatives=alternatives)

    def note(self, chunk: Mapping[str, JSON]) -> None:
        """Keep a chunk's ``id``, ``model``, ``id_slot`` and ``timings``."""
        identity, model, slot = chunk.get("id"), chunk.get("model"), chunk.get("id_slot")
        if isinstance(identity, str):
            self.response_id = identity
        if isinstance(model, str):
            self.response_model = model
        if isinstance(slot, int) and slot >= 0:
            self.slot = slot
        if isinstance(timings := chunk.get("timings"), dict):
            self.raw_timings = numbers(timings)

    def note_progress(self, progress: Mapping[str, JSON], now: int) -> TokenEvent:
        """Keep llama.cpp's ``prompt_progress``; its event has the fraction of the uncached prompt that is done."""
        self.progress = known = numbers(progress)
        work = known.get("total", 0) - known.get("cache", 0)
        done = min(1.0, max(0.0, known.get("processed", 0) - known.get("cache", 0)) / work) if work > 0 else None
        return TokenEvent(now, "progress", progress=done)

    def note_finish(self, reason: str, now: int) -> TokenEvent:
        """Keep why the model ended; reasons of other servers (``content_filter``) count as ``stop``."""
        self.finish_reason = _ENDED.get(reason, "stop")
        return TokenEvent(now, "finish", reason)

    def accounts(self, sent_ns: int) -> tuple[Timings, int | None, int | None]:
        """Timings, input and output tokens: the server's figures, the client's where the stream broke before them."""
        times = list(self.times)
        raw, (input_tokens, output_tokens, cached) = self.raw_timings, self.usage
        if "cache_n" in raw:
            cached = int(raw["cache_n"])
        elif cached is None and "cache" in self.progress:
            cached = int(self.progress["cache"])
        if "prompt_n" in raw:
            input_tokens = int(raw["prompt_n"] + raw.get("cache_n", 0))
        elif input_tokens is None and "total" in self.progress:
            input_tokens = int(self.progress["total"])
        if "predicted_n" in raw:
            output_tokens = int(raw["predicted_n"])
        elif output_tokens is None:
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
        ttft_s = (times[0] - sent_ns) / 1e9 if times else None
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
            input_tokens,
            output_tokens,
        )

    def tool_calls(self) -> tuple[dict[str, JSON], ...]:
        """The calls that the model asked for, in OpenAI's form, in the order in which they began."""
        return tuple(
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": call["arguments"]},
            }
            for call in self.tools.values()
        )


def numbers(values: Mapping[str, JSON]) -> dict[str, float]:
    """The fields that are numbers a server can mean: neither infinite nor beyond 64 bits."""
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63
    }


def count(value: object) -> int | None:
    """``value`` when it can be a number of tokens."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None
