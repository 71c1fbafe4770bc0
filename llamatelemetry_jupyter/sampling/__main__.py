"""``python -m llamatelemetry_jupyter.sampling``: what :class:`.process.SamplerProcess` starts."""

from __future__ import annotations

import sys

from .sampler import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
