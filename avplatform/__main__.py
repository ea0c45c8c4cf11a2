"""The command line, as `python -m avplatform`."""

import sys

from avplatform.cli import main

if __name__ == "__main__":
    sys.exit(main())
