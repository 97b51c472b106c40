"""``python -m nexcage``."""

import sys

from nexcage._cli.main import main

if __name__ == "__main__":
    sys.exit(main())
