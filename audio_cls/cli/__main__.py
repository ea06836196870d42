"""`python -m audio_cls.cli`."""

import sys

from audio_cls.cli import main

if __name__ == "__main__":
    sys.exit(main())
