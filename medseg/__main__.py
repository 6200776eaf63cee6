"""``medseg`` and ``python -m medseg``: the command line, with Ctrl-C answered from the first moment on.

Nothing is imported on top that takes time: what arrives while the commands themselves are being loaded would
else end in a traceback.
"""

import sys


def start() -> int:
    """Load the command line and run it; returns the exit code of :func:`medseg.cli.main.main`."""
    try:
        from medseg.cli.main import main

        return main()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted before anything was done\n")
        return 130


if __name__ == "__main__":
    sys.exit(start())
