"""`python -m stemflow` is the command `stemflow` of that Python."""

import sys

from stemflow.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
