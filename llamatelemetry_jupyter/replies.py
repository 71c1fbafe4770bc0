"""Answers what a widget's front end asks, each request on a thread of its own.

A request is ``{id, op, args}``; the answer is ``{type: "reply", id, ok, data}`` or ``{…, ok: false, error: {what,
hint}}``. A long one tells how far it is in between: ``{type: "progress", id, stage, fraction}``. A kernel that runs a
cell hears no request until that ends; the front end says so.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from .errors import LlamaError
from .progress import Step

_log = logging.getLogger(__name__)
#: Takes a request's ``args`` as keywords and ``progress(step)``; returns JSON-safe data.
Operation: TypeAlias = "Callable[..., Any]"
#: So many at once: a button that is pressed again and again starts no more threads.
_MOST = 8


class Replies:
    """Answers through ``send`` by ``operations``; ``threads`` False answers in place, where a thread cannot send."""

    def __init__(
        self,
        send: Callable[[dict[str, Any]], object],
        operations: Mapping[str, Operation],
        *,
        threads: bool = True,
    ) -> None:
        self._send = send
        self._operations = operations
        self._threads = threads
        self._running = threading.BoundedSemaphore(_MOST)

    def on_message(self, _widget: object, content: object, _buffers: object = None) -> None:
        """A message of the front end, on any thread; what is no request of ours is passed over."""
        if not isinstance(content, Mapping) or not isinstance(number := content.get("id"), (str, int)):
            return
        operation, args = self._operations.get(str(content.get("op"))), content.get("args")
        if operation is None or not isinstance(args, Mapping):
            return
        if not self._running.acquire(blocking=False):
            self._reply(number, error={"what": "too many requests at once", "hint": "wait a moment"})
            return
        if self._threads:
            arguments = (number, operation, dict(args))
            threading.Thread(target=self._answer, args=arguments, name="llamatelemetry-request", daemon=True).start()
        else:
            self._answer(number, operation, dict(args))

    def _answer(self, number: str | int, operation: Operation, args: dict[str, Any]) -> None:
        def progress(step: Step) -> None:
            self._out({"type": "progress", "id": number, "stage": step.what, "fraction": step.fraction})

        try:
            data = operation(progress=progress, **args)
        except LlamaError as error:
            self._reply(number, error={"what": str(error), "hint": error.hint or ""})
        except Exception as error:  # noqa: BLE001 (a thread has nobody to raise to; the front end shows it)
            _log.exception("a request of a widget failed")
            self._reply(number, error={"what": f"{type(error).__name__}: {error}", "hint": "%llama doctor"})
        else:
            self._reply(number, data)
        finally:
            self._running.release()

    def _reply(self, number: str | int, data: Any = None, error: dict[str, str] | None = None) -> None:
        told = {"data": data} if error is None else {"error": error}
        self._out({"type": "reply", "id": number, "ok": error is None, **told})

    def _out(self, content: dict[str, Any]) -> None:
        try:
            self._send(content)
        except Exception:  # noqa: BLE001 (whatever a comm raises when its socket or kernel is gone: nobody is there)
            _log.debug("a widget's answer could not be sent in process %d", os.getpid(), exc_info=True)
