"""``python -m medseg`` is ``medseg``."""

import sys

from medseg.cli.main import main

sys.exit(main())
