"""``python -m pytest_memvid_async FILE`` prints a recording, for ``git diff``."""

import asyncio
import sys

from .recording_text import print_recording

if len(sys.argv) != 2:
    sys.exit("usage: python -m pytest_memvid_async FILE")
sys.exit(asyncio.run(print_recording(sys.argv[1])))
