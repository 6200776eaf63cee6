"""``python -m medseg`` is ``medseg``."""

import sys

from medseg.cli import main

sys.exit(main())
