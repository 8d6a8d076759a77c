#!/usr/bin/env python3
"""kill_test.py with 20 kills."""
import pathlib
import subprocess
import sys

sys.exit(subprocess.call([sys.executable, str(pathlib.Path(__file__).with_name("kill_test.py")), sys.argv[1], "20"]))
