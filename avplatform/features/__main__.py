"""The command `avplatform extract` as a module, which `accelerate launch -m` needs."""

from __future__ import annotations

import sys

from avplatform.cli import main

if __name__ == "__main__":
    sys.exit(main(["extract", *sys.argv[1:]]))
