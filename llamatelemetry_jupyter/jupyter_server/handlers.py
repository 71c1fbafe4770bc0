"""``GET llamatelemetry/kernels`` and ``GET llamatelemetry/samples``, below the server's address and by its rules.

A refusal is JSON, ``{"message", "hint"}``. What reads rings is imported at the first question.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado import web

from ..errors import CommandError, LlamaError

if TYPE_CHECKING:
    from .answers import Kernel


class KernelsHandler(APIHandler):
    """Every kernel of this server, and every other one that writes a ring or left one."""

    auth_resource = "kernels"  # who may look at kernels may look at what they hold
    _track_activity = False  # a page that looks once a second keeps no idle server from being culled

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """What :meth:`answer` reads; in a thread, so that the server goes on meanwhile."""
        try:
            self.finish(await asyncio.to_thread(self.answer, await self._kernels()))
        except LlamaError as error:
            self.set_status(400 if isinstance(error, CommandError) else 404)
            self.finish({"message": str(error), "hint": error.hint})

    def answer(self, kernels: list[Kernel]) -> dict[str, Any]:
        """The body for these kernels of the server; raises LlamaError, CommandError for a wrong question."""
        from . import answers

        return {"kernels": answers.kernels(kernels)}

    async def _kernels(self) -> list[Kernel]:
        from .answers import Kernel

        sessions = {one["kernel"]["id"]: one for one in await self.session_manager.list_sessions()}
        found = []
        for name in self.kernel_manager.list_kernel_ids():
            # A kernel behind a gateway has no provisioner here, and a provisioner need not have a process.
            pid = getattr(getattr(self.kernel_manager.get_kernel(name), "provisioner", None), "pid", None)
            session = sessions.get(name, {})
            found.append(Kernel(name, session.get("name"), session.get("path"), pid))
        return found


class SamplesHandler(KernelsHandler):
    """The samples of one kernel in columns: ``?kernel=ID[&window_s=600&points=500]``."""

    def answer(self, kernels: list[Kernel]) -> dict[str, Any]:
        """The columns, with all that tells whether the kernel and its sampler live."""
        from . import answers

        if not (wanted := self.get_query_argument("kernel", "")):
            raise CommandError("the kernel is missing", hint="llamatelemetry/samples?kernel=ID")
        window_s, points = self._number("window_s", 600, 0, 86400), self._number("points", 500, 2, 5000)
        return answers.samples(kernels, wanted, window_s, int(points))

    def _number(self, name: str, default: int, low: int, high: int) -> float:
        text = self.get_query_argument(name, str(default))
        try:
            value = float(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise CommandError(f"{name}={text[:80]!r} is no number from {low} to {high}", hint=f"{name}={default}")
        return value
