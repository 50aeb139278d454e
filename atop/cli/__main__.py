"""`python -m atop.cli` is the `atop` command."""

import sys

from atop.cli import main

sys.exit(main())
