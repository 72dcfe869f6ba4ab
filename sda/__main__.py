"""``python -m sda``: the command ``sda`` without relying on the installed script."""

import sys

from sda.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
