"""`python -m virtviz` is the same as `virtviz`."""

import sys

from virtviz.cli import main

if __name__ == "__main__":
    sys.exit(main())
