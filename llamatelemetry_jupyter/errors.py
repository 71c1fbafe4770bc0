"""What a user reads when something went wrong: what happened, and the one thing to type.

IPython prints an exception that has ``_render_traceback_`` as exactly the lines it returns, sends a real ``error``
message and stops Run All; real bugs are not wrapped and keep their traceback.
"""

from __future__ import annotations

from . import escape


class LlamaError(Exception):
    """A user's error: ``LlamaError("server not started", hint="%llama start")`` shows as two lines.

    The first line says what happened (and the likely cause), ``hint`` what to type. Keep the cause with
    ``raise LlamaError(...) from exc``.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        return str(self.args[0])

    def _render_traceback_(self) -> list[str]:
        # Messages quote servers, logs and files: their control codes are not the terminal's.
        lines = [escape.plain(f"{type(self).__name__}: {self}")]
        return [*lines, escape.plain(f"  try: {self.hint}")] if self.hint else lines


class CommandError(LlamaError):
    """A magic was typed wrongly: unknown subcommand or option, missing argument, empty prompt."""


class EngineError(LlamaError):
    """No llama.cpp engine was found on this machine."""


class ModelError(LlamaError):
    """A model is unknown, cannot be fetched, or cannot be loaded."""


class FetchError(LlamaError):
    """A file could not be downloaded or unpacked, or is not the one that was promised."""


class GGUFError(ModelError):
    """A file is not a GGUF file, or is truncated or inconsistent."""


class ServerError(LlamaError):
    """A server could not be started, is not running, or died."""


class RequestError(LlamaError):
    """The server refused or broke off a request; ``status`` is the HTTP status, ``kind`` the server's error type."""

    def __init__(
        self, message: str, *, hint: str | None = None, status: int | None = None, kind: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.kind = kind


class UnauthorizedError(RequestError):
    """The API key is missing or wrong (401)."""


class LoadingError(RequestError):
    """The server is still loading its model (503), longer than the client was told to wait."""


class ContextFullError(RequestError):
    """Prompt and answer do not fit into the context; nothing is wrong with the request otherwise."""


class NotSupportedError(RequestError):
    """This model, build or set-up of the server cannot do it (501, 403); another one can."""


class ExportError(LlamaError):
    """A graph or trace could not be sent; the files written before are named in the message."""
