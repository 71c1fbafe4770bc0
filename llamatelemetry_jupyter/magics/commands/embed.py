"""``%llama embed``: texts as vectors, and rows found by meaning."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ...errors import CommandError
from ...progressline import Line
from ..kept import Kept
from ..parser import Parser, closest
from ..template import substitute

if TYPE_CHECKING:
    from pandas import DataFrame

    from ...inference.embeddings import Embeddings
    from ...session import Session
    from ...values import ServerHandle

TAKES_PROMPT = True
_SERVER = "embed"
_kept: Kept[tuple[ServerHandle, Embeddings]] = Kept()


def configure(parser: Parser) -> None:
    """What to embed; the rest of the line, or the cell, is the text, with --from the query."""
    parser.add_argument("-m", "--model", metavar="NAME", help="the model of the embedding server (the one that runs)")
    parser.add_argument("--from", dest="source", metavar="NAME", help="a DataFrame, Series or list of this notebook")
    parser.add_argument("--column", metavar="NAME", help="the DataFrame's column that holds the texts")
    parser.add_argument("-k", type=int, default=5, metavar="N", help="with a query: the N nearest rows (5)")
    parser.add_argument("--out", metavar="NAME", help="put the result into this variable")
    parser.add_argument("--raw", action="store_true", help="take {{name}} as it is")


def run(session: Session, args: argparse.Namespace) -> DataFrame:
    """Vectors as a DataFrame, a row a text; with --from and a query, the rows that are nearest to it."""
    import pandas as pd

    if args.out and not args.out.isidentifier():
        raise CommandError(f"--out needs a variable name, not {args.out!r}", hint="%llama embed --out vectors …")
    names = session.shell.user_ns if session.shell else {}
    text = (args.prompt if args.raw else substitute(args.prompt, names)).strip()
    if args.k < 1:
        raise CommandError(f"-k must be at least 1, not {args.k}", hint="%llama embed -k 5 …")
    if args.source is None:
        if args.column:
            raise CommandError(
                "--column is of a DataFrame that --from names", hint="%llama embed --from df --column text"
            )
        if not text:
            raise CommandError("there is no text", hint="%llama embed A text, or --from NAME")
        result = pd.DataFrame(_embeddings(session, args.model).embed(text), index=[text])
    else:
        frame, column = _table(args.source, args.column, names)
        index = _embeddings(session, args.model).index(frame, column)
        result = index.search(text, args.k) if text else pd.DataFrame(index.vectors, index=index.frame.index)
    if args.out and session.shell is not None:
        session.shell.user_ns[args.out] = result
    return result


def _table(name: str, column: str | None, names: dict[str, Any]) -> tuple[DataFrame, str]:
    """The variable as a table and the column that holds its texts."""
    import pandas as pd

    if name not in names:
        near = closest(name, [known for known in names if not known.startswith("_")])
        raise CommandError(
            f"--from: no variable {name!r}" + (f"; did you mean {near!r}?" if near else ""),
            hint=f"%llama embed --from {near or 'df'}",
        )
    value = names[name]
    if isinstance(value, pd.DataFrame):
        if column is None:
            texts = [one for one in value.columns if pd.api.types.infer_dtype(value[one], skipna=True) == "string"]
            if len(texts) != 1:
                among = ", ".join(map(str, texts or value.columns))
                raise CommandError(f"which column of {name} holds the texts: {among}?", hint="--column NAME")
            column = str(texts[0])
        return value, column
    if isinstance(value, list | tuple | pd.Index | pd.Series) or type(value).__module__ == "numpy":
        series = value if isinstance(value, pd.Series) else pd.Series(list(value), dtype=object)
        return series.rename("text").to_frame(), "text"
    raise CommandError(
        f"--from: {name} is a {type(value).__name__}, not a DataFrame, Series or list", hint="%llama embed --from texts"
    )


def _embeddings(session: Session, model: str | None) -> Embeddings:
    """Vectors from the server named embed, which is started when it does not run with this model."""
    from ...inference.embeddings import Embeddings

    running = {handle.name: handle for handle in session.handles()}
    handle = running.get(_SERVER)
    known = handle.model if handle is not None else None
    if handle is None or (model is not None and known is not None and model not in (known.id, known.path)):
        answering = session.handle.model if session.handle is not None else None
        # By name where it has one: a path would be another model to whoever asks for it by its name.
        default = (answering.id if answering.sha256 else answering.path) if answering is not None else "smollm2-135m"
        with Line() as line:
            handle = session.start(model or default, name=_SERVER, embeddings=True, on_progress=line)
            line.end(f"embeddings by {handle.model.id if handle.model else handle.url}, on a server named {_SERVER}")
    kept = _kept.get(session)
    if kept is None or kept[0] != handle:
        kept = _kept.put(session, (handle, Embeddings(session.engine(server=_SERVER))))
    return kept[1]
