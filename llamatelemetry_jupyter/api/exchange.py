"""One streamed request from sending to its outcome, on whatever transport: observed, settled once, and its answer.

Kept apart from the iterator that users hold: an iterator that is dropped half way takes this with it, and the last
reference ends the request on the server and in the trace. The outcome is settled exactly once, by whoever is first: the
end of the stream, an error, an interrupt, another thread's cancel, or the garbage collector.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import TypeVar, cast

from .. import clock
from ..errors import LlamaError, RequestError
from ..values import JSON, Answer, Call, CallObserver, FinishReason, Outcome, Timings, TokenEvent
from . import failures
from .address import Endpoint
from .reader import Reader
from .reception import Reception, count
from .request import Generation, Request, encode

T = TypeVar("T")


class Exchange:
    """A streamed request under way: a transport feeds its :attr:`reader`, any thread may take :attr:`answer`.

    ``hang_up`` (any thread) and ``close`` (the reader, or the last reference; true: the connection is good for another
    request) are set by the transport.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        request: Generation,
        observer: CallObserver | None,
        *,
        model: str | None = None,
        server: str | None = None,
        timeout_s: float,
    ) -> None:
        self._begun = False
        self.outcome: Outcome | None = None
        self.hang_up: Callable[[], None] | None = None
        self.close: Callable[[bool], None] | None = None
        self.endpoint = endpoint
        self.request = request
        self.server = server
        self.model = request.model or model
        self.reception = Reception(request.max_tokens)
        self.error: str | None = None
        self.reader = Reader(self.reception, keep=request.keep_events)
        self._timeout_s = timeout_s
        self._lock = threading.RLock()
        self._call: Call | None = None
        self._moved, self._progress = time.monotonic(), (0, 0)
        self.sent_ns = clock.now_ns()
        body = request.named(model)
        self.payload = None if request.method == "GET" else encode(body)
        if observer is not None and request.operation is not None:
            self._call = observer.start(request.operation, self.model, endpoint.host, endpoint.port, body)
        self._begun = True

    @property
    def headers(self) -> dict[str, str]:
        """The headers to send: the trace's, the conversation's and the key."""
        headers = self.endpoint.headers("application/json", self._call.headers if self._call is not None else None)
        if self.request.conversation is not None and self.request.method == "POST":
            headers["X-Conversation-Id"] = self.request.conversation
        return headers

    def sending(self) -> None:
        """Start the clock: the request goes out now."""
        self.sent_ns = clock.now_ns()
        self._moved = time.monotonic()

    def accepts(self, status: int, content_type: str | None) -> bool:
        """Whether an answer with these headers is the stream; if not, read it and raise :meth:`refusal`."""
        if status < 400 and content_type is None:  # the headers broke off
            raise failures.broken(self.endpoint.url, None, 0)
        return status < 400 and (content_type or "").partition(";")[0].strip().lower() == "text/event-stream"

    def refusal(self, status: int, content_type: str | None, body: bytes) -> RequestError:
        """The error of an answer that is not a stream."""
        if status >= 400:
            return failures.refused(status, body, wanted_tokens=self.request.max_tokens)
        return failures.malformed(f"the server sent {failures.quoted(content_type)}, not a stream", body)

    def waited(self) -> None:
        """Bytes came that completed no event: raises ``TimeoutError`` when nothing was completed for too long."""
        now, progress = time.monotonic(), self.reader.progress
        if progress != self._progress:
            self._moved, self._progress = now, progress
        elif now - self._moved > self._timeout_s:
            raise TimeoutError

    def ended(self, exc: BaseException | None = None) -> None:
        """The stream ended; raises what it says that went wrong, or :class:`ServerError` when the answer had no end."""
        if self.reader.failure is not None:
            raise self.reader.failure
        if not self.reception.done and self.reception.finish_reason is None:
            raise failures.broken(self.endpoint.url, exc, len(self.reception.times)) from exc

    def lost(self, error: LlamaError) -> TokenEvent | None:
        """Settle as failed; returns the event that says so, when there were others before it."""
        self.settle("error", error)
        if not self.reception.times and not self.reception.progress:
            return None
        return TokenEvent(clock.now_ns(), "error", error=str(error))

    # ------------------------------------------------------------------------------------------------------- the end

    def settle(
        self, reason: FinishReason | None = None, error: BaseException | None = None, *, abandoned: bool = False
    ) -> None:
        """End the request on the server and tell the observer; only the first settlement counts.

        ``reason`` ``None``: the answer is complete, for the reason that the server gave.
        """
        with self._lock:
            if self.outcome is not None:
                return
            self.error = str(error) if error is not None else None
            self.outcome = self._outcome(reason or self.reception.finish_reason or "stop", abandoned=abandoned)
            if reason is not None and self.hang_up is not None:
                self.hang_up()
            # Inside the lock: whoever finds the exchange settled finds the call ended, too.
            if self._call is None:
                return
            if error is None:
                self._call.end(self.outcome)
            else:
                self._call.fail(error, self.outcome)

    @property
    def complete(self) -> bool:
        """Whether the answer came to its own end."""
        return self.outcome is not None and self.outcome.finish_reason not in ("interrupted", "error")

    def __del__(self) -> None:
        if self._begun:  # encode() may have raised before anything was there to end
            self.settle("interrupted", abandoned=True)
            if self.close is not None:
                self.close(False)

    # -------------------------------------------------------------------------------------------------- what it makes

    def _outcome(self, reason: FinishReason | None, *, abandoned: bool) -> Outcome:
        got = self.reception
        times = list(got.times)
        timings, input_tokens, output_tokens = got.accounts(self.sent_ns)
        return Outcome(
            sent_ns=self.sent_ns,
            first_token_ns=times[0] if times else None,
            end_ns=clock.now_ns(),
            finish_reason=reason,
            response_id=got.response_id,
            response_model=got.response_model,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            timings=timings,
            gaps_s=tuple((b - a) / 1e9 for a, b in pairwise(times)),
            raw_timings=got.raw_timings,
            slot=got.slot,
            output="".join(got.texts),
            abandoned=abandoned,
        )

    @property
    def answer(self) -> Answer:
        """What has arrived; ``finish_reason`` is ``interrupted`` as long as the stream has not ended."""
        outcome = self.outcome or self._outcome(self.reception.finish_reason, abandoned=False)
        reason = outcome.finish_reason or "interrupted"
        text = "".join(self.reception.texts)
        parsed, error = self._parsed(text, reason) if self.request.parse_json else (None, self.error)
        return Answer(
            text=text,
            finish_reason=reason,
            reasoning="".join(self.reception.reasoning),
            input_tokens=outcome.input_tokens,
            output_tokens=outcome.output_tokens,
            timings=outcome.timings,
            model=outcome.response_model or self.model,
            server=self.server,
            trace_id=self._call.trace_id if self._call is not None else None,
            span_id=self._call.span_id if self._call is not None else None,
            parsed=parsed,
            tool_calls=self.reception.tool_calls(),
            tokens=tuple(self.reader.events),
            error=error,
        )

    def _parsed(self, text: str, reason: FinishReason) -> tuple[JSON, str | None]:
        if reason == "length":
            return None, "the JSON is incomplete; a larger max_tokens lets it end"
        if reason != "stop":
            return None, self.error
        try:
            return cast("JSON", json.loads(text)), None
        except (ValueError, RecursionError) as exc:
            return None, f"the answer is not JSON: {exc}"


class Watched:
    """What :func:`watched` hands out: the headers to send, and where to put the answer that came."""

    def __init__(self, call: Call | None) -> None:
        self.headers: Mapping[str, str] | None = call.headers if call is not None else None
        self.data: object = None

    def answer(self, request: Request[T], status: int, content: bytes) -> T:
        """The request's result; its figures are kept for the observer."""
        result, self.data = request.result(status, content)
        return result


@contextmanager
def watched(
    endpoint: Endpoint, request: Request[T], observer: CallObserver | None, model: str | None
) -> Iterator[Watched]:
    """Tell ``observer`` of a request that makes the model work: that it begins, then its end or its failure, once."""
    body = request.named(model)
    call = None
    if observer is not None and request.operation is not None and isinstance(body, Mapping):
        name = body.get("model")
        shown = name if isinstance(name, str) else model
        call = observer.start(request.operation, shown, endpoint.host, endpoint.port, body)
    sent_ns = clock.now_ns()
    watch = Watched(call)
    try:
        yield watch
    except BaseException as exc:
        if call is not None:
            call.fail(exc)
        raise
    if call is None:
        return
    data = watch.data if isinstance(watch.data, Mapping) else {}
    usage = data.get("usage")
    used = count(usage.get("prompt_tokens")) if isinstance(usage, Mapping) else None
    served = data.get("model")
    served = served if isinstance(served, str) else None
    call.end(Outcome(sent_ns, None, clock.now_ns(), None, None, served, used, None, Timings()))
