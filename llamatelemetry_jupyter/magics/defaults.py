"""``%config LlamaMagics.…``: what an option is when it is not typed, for this session or from ``ipython_config.py``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import traitlets

if TYPE_CHECKING:
    _Trait = traitlets.TraitType[Any, Any]
else:  # traitlets 5.7 has no parameters at run time
    _Trait = traitlets.TraitType


class Default(_Trait):
    """A value that may be ``None``: then the option's own default holds."""

    allow_none = True
    default_value = None

    def __init__(self, kind: type, about: str, fits: Callable[[Any], bool] = lambda _: True) -> None:
        super().__init__(help=about)
        self.kind, self.info_text, self.fits = kind, about, fits

    def validate(self, _obj: object, value: Any) -> Any:
        """The value, in its type; IPython shows the error as one line."""
        whole = isinstance(value, int) and not isinstance(value, bool)
        made = float(value) if self.kind is float and whole else value
        if isinstance(made, bool) or not isinstance(made, self.kind) or not self.fits(made):
            said = f"LlamaMagics.{self.name} is {self.info_text}, not {value!r}"
            raise traitlets.TraitError(f"{said}; None unsets it")
        return made

    def from_string(self, text: str) -> Any:
        """Of a shell's command line: ``ipython --LlamaMagics.max_tokens=64``."""
        return None if text == "None" else text if self.kind is str else self.kind(text)


class Defaults(traitlets.HasTraits):
    """The options that can be set once for all commands."""

    model = Default(str, "the model that %llama start serves: a name, an address or a file").tag(config=True)
    engine = Default(str, "the engine of %llama start: a path, xllamacpp, or one that was installed").tag(config=True)
    ctx = Default(int, "the context of %llama start, in tokens per slot", lambda n: n > 0).tag(config=True)
    system = Default(str, "the system prompt of %%llama and of the chat").tag(config=True)
    temperature = Default(float, "the temperature of %%llama and of the chat, 0 or more", lambda x: 0 <= x < math.inf)
    temperature.tag(config=True)
    max_tokens = Default(int, "the most tokens of an answer, 1 or more", lambda n: n > 0).tag(config=True)
    window = Default(float, "the seconds that %llama dashboard shows, up to a day", lambda s: 0 < s <= 86_400)
    window.tag(config=True)


def of(shell: Any) -> Defaults:
    """Those of ``shell``; without one, or where the extension is not loaded, none is set."""
    known = shell.magics_manager.registry.get("LlamaMagics") if shell is not None else None
    return known if isinstance(known, Defaults) else Defaults()


def fill(shell: Any, args: argparse.Namespace, *names: str) -> None:
    """Set the options ``names`` that were not typed (``None``) to what ``%config`` says."""
    own = of(shell)
    for name in names:
        if getattr(args, name) is None:
            setattr(args, name, getattr(own, name))
