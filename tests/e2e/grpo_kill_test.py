#!/usr/bin/env python3
"""kill -9 of a random rank at a random moment of a rollout, of a reward and of an update: the resumed run gets the
rewards of one that was never killed. `grpo_kill_test.py BINARY [KILLS]`; grpo_kill_long.py makes 15."""
import os
import random
import signal
import subprocess
import sys
import time

from harness import ENVIRONMENT, check, command, ranks_of
from sums import Sums

KILLS = int(sys.argv[2]) if len(sys.argv) > 2 else 3
STEPS = 2 * KILLS + 3
SCRIBE_SECONDS = 0.5
seed = int(os.environ.get("COHORT_KILL_SEED", int.from_bytes(os.urandom(4), "little")))
print("COHORT_KILL_SEED =", seed)
rng = random.Random(seed)
work = Sums()
settings = ["rl.beta=0.02", "rl.reference_every=3", f"train.steps={STEPS}", f"schedule.total_steps={STEPS}", "checkpoint.save_every=2"]


def events(name):
    return sum(note.get("event") == name for note in work.record("killed"))


# What begins the phase, and how long after that the kill comes at the latest.
PHASES = {"rollout": (lambda: work.steps_logged("killed"), 0.1),
          "reward": (lambda: events("begin"), SCRIBE_SECONDS),
          "update": (lambda: events("end"), 0.2)}

work.grpo("whole", *settings, ranks=2, ep=2)
for kill in range(KILLS):
    phase = list(PHASES)[kill % len(PHASES)]
    count, most_seconds = PHASES[phase]
    before = count()
    process = subprocess.Popen(command(["grpo", "--config", work.grpo_config("killed", 2), *settings, "--resume"], 2),
                               env=dict(ENVIRONMENT, SCRIBE_SECONDS=str(SCRIBE_SECONDS)), stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 60
    # The first step of a process may repeat one that is logged already; the second is new.
    waits_for = before + (1 if phase == "rollout" else rng.choice([1, 2, 3]))
    while count() < waits_for and process.poll() is None and time.time() < deadline:
        time.sleep(0.005)
    time.sleep(rng.uniform(0, most_seconds))
    ranks = ranks_of(process.pid, "grpo")
    check(len(ranks) == 2, f"kill {kill + 1}: the run is at work on its {phase}")
    os.kill(rng.choice(ranks), signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    check(process.returncode != 0, f"kill {kill + 1}: the whole job ends, with a failure")
    check(work.steps_logged("killed") < STEPS, f"kill {kill + 1}: in the middle of the run, after step {work.steps_logged('killed')}")

work.grpo("killed", *settings, "--resume", ranks=2, ep=2)
for a, b in zip(work.figures("killed"), work.figures("whole")):
    unequal = {key: (a.get(key), b.get(key)) for key in a | b if a.get(key) != b.get(key)}
    check(not unequal, f"step {b['step']} has the rewards, and all figures, of a run that was never killed {unequal or ''}")
check([step["step"] for step in work.metrics("killed")] == list(range(1, STEPS + 1)), "each step is logged once")
check(work.samples("killed") == work.samples("whole"), "samples.jsonl is the same")
check(work.weights("killed") == work.weights("whole"), "the last weights, moments and reference are the same byte for byte")
deadline = time.time() + 10
while time.time() < deadline:
    left = subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True).stdout.count(str(work.folder / "scribe.py"))
    if not left:
        break
    time.sleep(0.1)
check(left == 0, "no reward program outlives its run")
