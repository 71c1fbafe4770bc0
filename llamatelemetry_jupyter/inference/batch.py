"""Many prompts at once: as many in parallel as the server has slots, answers in the order of the prompts.

Waiting is left to threads: a request spends its life in the server, and the cell's own thread stays free for the
progress bar and for the interrupt, which ends what runs and keeps what is done.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .. import escape
from ..errors import CommandError, LlamaError
from ..progress import Progress, Step
from ..progressline import shown
from ..values import Answer
from .interrupt import Interrupted
from .options import chat_request

if TYPE_CHECKING:
    from typing import Unpack

    from pandas import DataFrame

    from ..api.client import Message
    from ..api.stream import TokenStream
    from .engine import InferenceEngine
    from .options import ChatOptions


@dataclass(frozen=True)
class BatchResult:
    """Answers in the order of their prompts; ``None`` where there is none, and then ``errors[index]`` says why.

    ``interrupted`` is true when the user ended it: prompts without answer and error were not asked to the end.
    """

    prompts: tuple[str, ...]
    answers: tuple[Answer | None, ...]
    errors: Mapping[int, LlamaError] = field(default_factory=dict)
    interrupted: bool = False

    def __len__(self) -> int:
        return len(self.answers)

    def __iter__(self) -> Iterator[Answer | None]:
        return iter(self.answers)

    def __getitem__(self, index: int) -> Answer | None:
        return self.answers[index]

    @property
    def texts(self) -> list[str | None]:
        """The text of each answer."""
        return [answer.text if answer is not None else None for answer in self.answers]

    def frame(self) -> DataFrame:
        """One row a prompt: prompt, text, finish_reason, tokens, rate (tokens/s), ttft_s, error, trace_id, span_id."""
        import pandas as pd

        rows = []
        for index, (prompt, answer) in enumerate(zip(self.prompts, self.answers, strict=True)):
            error = self.errors.get(index)
            rows.append(
                {
                    "prompt": prompt,
                    "text": answer.text if answer else None,
                    "finish_reason": answer.finish_reason if answer else None,
                    "input_tokens": answer.input_tokens if answer else None,
                    "output_tokens": answer.output_tokens if answer else None,
                    "decode_tokens_per_s": answer.timings.decode_tokens_per_s if answer else None,
                    "ttft_s": answer.timings.ttft_s if answer else None,
                    "error": str(error) if error else None,
                    "trace_id": answer.trace_id if answer else None,
                    "span_id": answer.span_id if answer else None,
                }
            )
        whole = {"input_tokens": "Int64", "output_tokens": "Int64"} if rows else {}
        return pd.DataFrame(rows).astype(whole)

    def __repr__(self) -> str:
        done = sum(answer is not None for answer in self.answers)
        parts = [f"{done} of {len(self)} answers"]
        if self.errors:
            first = min(self.errors)
            parts.append(f"{len(self.errors)} failed, the first at {first}: {escape.plain(self.errors[first])[:120]}")
        if self.interrupted:
            parts.append("interrupted")
        return f"BatchResult({'; '.join(parts)})"


def run(
    engine: InferenceEngine,
    prompts: Sequence[str | Sequence[Message]],
    *,
    parallel: int | None = None,
    progress: bool | Progress = True,
    **options: Unpack[ChatOptions],
) -> BatchResult:
    """The answers to ``prompts``, ``parallel`` at a time (the server's slots; more would only wait there).

    One prompt's failure is noted in ``errors`` and the others go on. An interrupt ends the requests that run, keeps
    what is done in ``engine.last_batch`` and is raised as :class:`Interrupted`. ``progress``: a line, nothing, or a
    function. Raises CommandError for bad options before anything is sent.
    """
    if isinstance(prompts, str):
        raise CommandError("a batch is a list of prompts, this is one text", hint="engine.batch_infer([text])")
    asked = list(prompts)
    chat_request(options)  # what is wrong for all of them is said once, and before the first is sent
    if parallel is not None and (type(parallel) is not int or parallel < 1):
        raise CommandError(f"parallel must be at least 1, not {parallel!r}", hint="parallel=4")
    work = _Work(engine, asked, options)
    threads = min(parallel or engine.slots(), len(asked)) if asked else 0
    with shown(progress) as say:
        try:
            say(Step("answering", 0, len(asked), "prompts"))
            work.start(threads)
            while work.open:
                work.collect()
                say(Step("answering", len(asked) - work.open, len(asked), "prompts", len(work.errors)))
        except KeyboardInterrupt as interrupt:
            work.stop()
            work.join()
            engine.last_batch = result = work.result(interrupted=True)
            done = sum(answer is not None for answer in result.answers)
            raise Interrupted(
                f"{done} of {len(asked)} answers are there and kept", hint="engine.last_batch.frame()"
            ) from interrupt
        except BaseException:
            work.stop()
            raise
        finally:
            work.join()
    engine.last_batch = work.result()
    return engine.last_batch


class _Work:
    """The prompts that are still to do, the threads that do them, and what came of it."""

    def __init__(self, engine: InferenceEngine, prompts: list[Any], options: Mapping[str, Any]) -> None:
        self.engine, self.prompts, self.options = engine, prompts, options
        self.answers: list[Answer | None] = [None] * len(prompts)
        self.errors: dict[int, LlamaError] = {}
        self.open = len(prompts)
        self._next = iter(range(len(prompts)))
        self._done: queue.SimpleQueue[tuple[int, Answer | BaseException]] = queue.SimpleQueue()
        self._running: set[TokenStream] = set()
        self._threads: list[threading.Thread] = []
        self._stopped = False
        self._lock = threading.Lock()

    def start(self, threads: int) -> None:
        for number in range(threads):
            # A copy each: a context can be entered by one thread at a time. It makes the cell's span the parent.
            context = contextvars.copy_context()
            thread = threading.Thread(
                target=context.run, args=(self._work,), name=f"llamatelemetry-batch-{number}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def collect(self) -> None:
        """Wait for the next one to be done; raises what is not an error of one prompt."""
        # In slices: a wait without an end could not be interrupted on every platform.
        try:
            index, came = self._done.get(timeout=0.1)
        except queue.Empty:
            return
        self.open -= 1
        if isinstance(came, Answer):
            self.answers[index] = came
        elif isinstance(came, LlamaError):
            self.errors[index] = came
        else:
            raise came

    def stop(self) -> None:
        """Start no more, and end what runs."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for stream in running:
            stream.cancel()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def result(self, *, interrupted: bool = False) -> BatchResult:
        while interrupted and not self._done.empty():  # done, but not yet collected when the interrupt came
            index, came = self._done.get()
            if isinstance(came, Answer) and came.finish_reason != "interrupted":
                self.answers[index] = came
        said = tuple(one if isinstance(one, str) else str(one) for one in self.prompts)
        return BatchResult(said, tuple(self.answers), dict(sorted(self.errors.items())), interrupted)

    def _work(self) -> None:
        while True:
            with self._lock:
                index = None if self._stopped else next(self._next, None)
            if index is None:
                return
            try:
                came: Answer | BaseException = self._ask(self.prompts[index])
            except BaseException as error:  # noqa: BLE001 (raised again in the caller's thread)
                came = error
            self._done.put((index, came))

    def _ask(self, prompt: Any) -> Answer:
        with self.engine.stream(prompt, **self.options) as stream:
            with self._lock:
                self._running.add(stream)
                if self._stopped:
                    stream.cancel()
            try:
                for _ in stream:
                    pass
            finally:
                with self._lock:
                    self._running.discard(stream)
        return stream.answer
