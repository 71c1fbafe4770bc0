"""What ``%load_ext`` adds to a shell, and how exactly that is taken away again.

IPython has no way to unregister magics, completers or formatters, so every entry that is made here is undone by hand;
a test compares the shell before and after.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand

from .defaults import Defaults
from .question import Question

_KEYS = ("%llama", "%%llama")


@magics_class
class LlamaMagics(Magics, Defaults):  # type: ignore[misc]  # IPython is not typed
    """Holds ``%llama`` and ``%%llama`` for one shell, and what their options are when they are not typed."""

    @no_var_expand  # type: ignore[untyped-decorator]
    @line_cell_magic  # type: ignore[untyped-decorator]
    def llama(self, line: str, cell: str | None = None) -> object:
        """Run a GGUF model here and see what it does: ``%llama --help`` lists the commands."""
        from .router import run

        return run(self.shell, line, cell)


class _Loaded:
    """The entries of one shell, to be undone."""

    def __init__(self, shell: Any) -> None:
        from ..cells import CellHooks

        self.shell = shell
        self.configurables = list(shell.configurables)
        shell.register_magics(LlamaMagics)
        for key in _KEYS:
            shell.set_hook("complete_command", _complete, str_key=key)
        shell.input_transformer_manager.token_transformers.append(Question)
        self.cells = CellHooks(shell)
        self.cells.register()
        shell.events.register("post_run_cell", _after_cell)
        for name, show in _SHOWN.items():
            shell.display_formatter.ipython_display_formatter.for_type_by_name(*name, show)

    def undo(self) -> None:
        """Take every entry away; safe when the user removed some of them already."""
        shell = self.shell
        manager = shell.magics_manager
        for kind in ("line", "cell"):
            manager.magics[kind].pop("llama", None)
        manager.registry.pop(LlamaMagics.__name__, None)
        shell.configurables[:] = [c for c in shell.configurables if not isinstance(c, LlamaMagics)]
        dispatch = shell.strdispatchers["complete_command"].strs
        for key in _KEYS:
            dispatch.pop(key, None)
        if _after_cell in shell.events.callbacks["post_run_cell"]:
            shell.events.unregister("post_run_cell", _after_cell)
        transformers = shell.input_transformer_manager.token_transformers
        transformers[:] = [known for known in transformers if known is not Question]
        self.cells.unregister()
        formatter = shell.display_formatter.ipython_display_formatter
        # The formatter moves an entry from its by-name table to its by-type table when the type is first seen.
        for name in _SHOWN:
            formatter.deferred_printers.pop(name, None)
        for known in [t for t in formatter.type_printers if (t.__module__, t.__name__) in _SHOWN]:
            formatter.type_printers.pop(known)


_loaded: dict[int, _Loaded] = {}


def load(shell: Any) -> None:
    """Register ``%llama`` in ``shell``; a second call does nothing."""
    if id(shell) not in _loaded:
        _loaded[id(shell)] = _Loaded(shell)


def unload(shell: Any) -> None:
    """Stop what was started and restore ``shell``; does nothing when not loaded."""
    entry = _loaded.pop(id(shell), None)
    if entry is None:
        return
    entry.undo()
    if session := _session():
        session.close()


def cells(shell: Any) -> Any:
    """The cell hooks of ``shell``, ``None`` when the extension is not loaded there."""
    entry = _loaded.get(id(shell))
    return entry.cells if entry else None


def _session() -> Any:
    """The session of this process if there is one; never makes one."""
    import sys

    module = sys.modules.get("llamatelemetry_jupyter.session")
    return module.existing() if module else None


def _after_cell(_result: object = None) -> None:
    if session := _session():
        session.refresh()


def _complete(shell: object, event: Any) -> list[str]:
    from .complete import complete

    found: Callable[..., list[str]] = complete
    return found(shell, event.line, event.symbol)


def _show_answer(answer: object) -> None:
    """Show nothing for an answer that its own cell has already streamed; else leave it to the usual formatters."""
    from .output import was_streamed

    if not was_streamed(answer):
        raise NotImplementedError  # how an IPython formatter says that the next one shall show the value


def _show_tokens(tokens: Any) -> None:
    """Show tokens as a widget with its static twin where somebody watches; else leave them to the usual formatters."""
    from .output import watched

    session = _session()
    if session is None or not watched(session.request):
        raise NotImplementedError  # as above: the next formatter shows the table
    from .commands.tokens import show

    show(tokens)


#: How values of ours are shown: module and name of their type → by what.
_SHOWN: dict[tuple[str, str], Callable[[Any], None]] = {
    ("llamatelemetry_jupyter.values", "Answer"): _show_answer,
    ("llamatelemetry_jupyter.views.comparison", "Comparison"): _show_answer,
    ("llamatelemetry_jupyter.views.tokens", "Tokens"): _show_tokens,
}
