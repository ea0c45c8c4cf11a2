"""`python -m avplatform.features` and `accelerate launch -m avplatform.features`: the command `avplatform extract`."""

from __future__ import annotations

import sys

from avplatform.cli import main

if __name__ == "__main__":
    sys.exit(main(["extract", *sys.argv[1:]]))
