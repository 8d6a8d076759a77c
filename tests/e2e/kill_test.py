#!/usr/bin/env python3
"""kill -9 of a random rank at random moments, saves included: the run always resumes from a checkpoint
that verifies, at most save_every steps back. `kill_test.py BINARY [KILLS]`; kill_long.py makes 20."""
import os
import random
import re
import signal
import subprocess
import sys
import time

from harness import ENVIRONMENT, Workspace, check, command, ranks_of

KILLS = int(sys.argv[2]) if len(sys.argv) > 2 else 4
EVERY = 3
work = Workspace()
rng = random.Random(int.from_bytes(os.urandom(4), "little") if "COHORT_KILL_SEED" not in os.environ
                    else int(os.environ["COHORT_KILL_SEED"]))


arguments = ["pretrain", "--config", work.config("killed", 2), f"checkpoint.save_every={EVERY}", "train.steps=100000",
             "log.validate_every=0", "--resume"]
before = 0
for kill in range(KILLS):
    process = subprocess.Popen(command(arguments, ranks=2), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 120
    while work.steps_logged("killed") <= before and process.poll() is None and time.time() < deadline:
        time.sleep(0.02)
    check(process.poll() is None and work.steps_logged("killed") > before, f"kill {kill + 1}: the run is at work")
    time.sleep(rng.uniform(0, 1.5))
    ranks = ranks_of(process.pid, "pretrain")
    check(len(ranks) == 2, f"kill {kill + 1}: two ranks are found")
    os.kill(rng.choice(ranks), signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    check(process.returncode != 0, f"kill {kill + 1}: the whole job ends, with a failure")
    reached = work.steps_logged("killed")
    done = work.pretrain("killed", f"checkpoint.save_every={EVERY}", f"train.steps={reached + 2 * EVERY}", "--resume",
                         "log.validate_every=0", ranks=2, ep=2)
    found = re.search(r"goes on from \S*step-(\d+)", done.stderr)
    start = int(found.group(1)) if found else 0
    check(reached - start <= EVERY, f"kill {kill + 1} after step {reached}: resumed from step {start}")
    steps = [step["step"] for step in work.metrics("killed")]
    check(steps == list(range(1, reached + 2 * EVERY + 1)), f"kill {kill + 1}: metrics.jsonl has each step once")
    before = steps[-1]
