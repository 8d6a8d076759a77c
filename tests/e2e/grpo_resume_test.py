#!/usr/bin/env python3
"""A GRPO run that was stopped, by its own end or by a signal, goes on bit for bit as if it had not been."""
import os
import signal
import subprocess
import time

from harness import ENVIRONMENT, check, command, ranks_of
from sums import RICH, Sums

work = Sums()


def same_run(name, whole, what):
    for a, b in zip(work.figures(name), work.figures(whole)):
        unequal = {key: (a.get(key), b.get(key)) for key in a | b if a.get(key) != b.get(key)}
        check(not unequal, f"{what}: step {b['step']} has the very figures of a run in one go {unequal or ''}")
    check(len(work.metrics(name)) == len(work.metrics(whole)), f"{what}: each step is logged once")
    check(work.samples(name) == work.samples(whole), f"{what}: and samples.jsonl is the same")
    check(work.completions(name) == work.completions(whole), f"{what}: and all completions, none drawn twice")
    check(work.weights(name) == work.weights(whole), f"{what}: and the last weights, moments and reference byte for byte")


def stopped_by_a_signal(name, overrides, ranks, ep, shaping):
    """Ends the run after some step by SIGTERM to one rank; a slow reward leaves the time."""
    process = subprocess.Popen(
        command(["grpo", "--config", work.grpo_config(name, ep, shaping), *overrides], ranks),
        env=dict(ENVIRONMENT, SCRIBE_SECONDS="0.4"), stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 60
    while process.poll() is None and time.time() < deadline:
        if work.steps_logged(name) >= 1:
            break
        time.sleep(0.02)
    check(process.poll() is None, f"SIGTERM, {ranks} rank(s): the run is at work")
    os.kill(process.pid if ranks == 1 else ranks_of(process.pid, "grpo")[-1], signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    last = work.metrics(name)[-1]["step"]
    check(1 <= last < 6 and work.checkpoints(name)[-1].name == f"step-{last:08d}",
          f"SIGTERM, {ranks} rank(s): the run ends with a checkpoint of its last step, {last}")
    check(process.returncode == 0 and "--resume" in stderr, f"SIGTERM, {ranks} rank(s): exit code 0, and it says how to go on")


plain = ["train.steps=6", "schedule.total_steps=6"]
rich = [*RICH, *plain]

# One rank, without a reference.
work.grpo("plain", *plain)
check(not any(tensor.startswith("reference.") for tensor in work.weights("plain")), "without beta no reference is kept")
stopped_by_a_signal("plain-stopped", plain, 1, 1, 0.125)
work.grpo("plain-stopped", *plain, "--resume")
same_run("plain-stopped", "plain", "SIGTERM, 1 rank")

# Two ranks that share the experts, a reference renewed at every second step, evaluation.
evaluation = ["rl.eval_every=3", "rl.eval_problems=5"]
at_once = dict(ranks=2, ep=2, shaping=0)
work.grpo("rich", *rich, *evaluation, **at_once)
check(any(tensor.startswith("reference.") for tensor in work.weights("rich")), "with beta the reference is kept")
work.grpo("rich-halves", *rich, *evaluation, "train.steps=3", **at_once)
work.grpo("rich-halves", *rich, *evaluation, "--resume", **at_once)
same_run("rich-halves", "rich", "3 + 3 steps, 2 ranks")
stopped_by_a_signal("rich-stopped", [*rich, *evaluation], **at_once)
work.grpo("rich-stopped", *rich, *evaluation, "--resume", **at_once)
same_run("rich-stopped", "rich", "SIGTERM, 2 ranks")
