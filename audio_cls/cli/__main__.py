"""`python -m audio_cls.cli`."""

import sys

from audio_cls.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
