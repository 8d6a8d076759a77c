#!/usr/bin/env python3
"""grpo_kill_test.py with 15 kills."""
import pathlib
import subprocess
import sys

sys.exit(subprocess.call([sys.executable, str(pathlib.Path(__file__).with_name("grpo_kill_test.py")), sys.argv[1], "15"]))
