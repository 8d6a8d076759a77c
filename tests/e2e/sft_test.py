#!/usr/bin/env python3
"""cohort sft learns the same on any mesh, in any micro-batches, and goes on after a stop or a kill as if there had been none."""
import json
import os
import random
import signal
import subprocess
import time

from answers import Answers
from harness import ENVIRONMENT, check, cohort, command, ranks_of

EXACT = ("step", "trained_tokens", "tokens", "epoch", "packing_efficiency", "examples_left_out", "lr", "skipped_steps")
NEAR = ("loss", "lm_loss", "mtp_loss", "grad_norm", "val_loss")  # the order of a sum differs between meshes
work = Answers()

done = work.sft("one")
steps = work.metrics("one")
card = json.loads((work.run("one") / "data_card.json").read_text())
train, more = card["sources"]
warnings = [line for line in done.stderr.splitlines() if "left out" in line]
check(len(warnings) == 1 and "2 of 22" in warnings[0], f"one warning counts what is left out: {warnings}")
check(all(step["examples_left_out"] == 2 for step in steps), "and the metrics")
check((train["documents"], more["documents"], card["validation"][0]["documents"]) == (85, 20, 15)
      and more["dropped"] == {"longer_than_seq_len": 2} and (train["weight"], more["weight"]) == (0.75, 0.25)
      and len(train["xxh3"]) == 16, "the data card tells examples, weights, hashes and what was dropped")
check(3 <= steps[-1]["epoch"] < 4.5 and steps[-2]["epoch"] < 3, f"3 epochs are {len(steps)} steps")
check(f"  steps: {len(steps)}\n" in (work.run("one") / "config.yaml").read_text(), "which config.yaml tells")
check(all(0.5 < step["packing_efficiency"] <= 1 for step in steps), "rows are packed")
check(0 < steps[-1]["trained_tokens"] < steps[-1]["tokens"], "prompts do not count in the loss")
check(all(abs(step["loss"] - step["lm_loss"] - 0.3 * step["mtp_loss"]) < 1e-5 and step["mtp_loss"] > 0 for step in steps),
      "the prediction module learns too")
validated = [step for step in steps if "val_loss" in step]
check([step["step"] for step in validated] == [*range(5, len(steps), 5), len(steps)], "held-out examples at every fifth step and at the end")
check(validated[-1]["val_loss"] < validated[0]["val_loss"], "their loss falls")
first = work.metrics("one")[0]["lm_loss"]
work.sft("longer", "train.epochs=40", "optimizer.lr=1e-2")
check(work.metrics("longer")[-1]["lm_loss"] < 0.2 * first, "examples are learned")
said = cohort("generate", "--model", work.run("longer"), "--prompt", "2 + 3 =", "--temperature", 0, "--max-new-tokens", 20, "--json").stdout
check("= 5" in said or " 5" in said, f"and are what the model then says: {said.strip()[:200]}")


def same(name, what, tolerance=3e-5):  # a dozen AdamW steps in fp32 carry the first step's 1e-7 on
    largest = 0
    check(len(work.metrics(name)) == len(steps), f"{what}: as many steps")
    for step, other in zip(steps, work.metrics(name)):
        unequal = {key: (step[key], other[key]) for key in EXACT if step[key] != other[key]}
        check(not unequal, f"{what}: counts of step {step['step']} {unequal or ''}")
        check(("val_loss" in step) == ("val_loss" in other), f"{what}: validation")
        largest = max(largest, *(abs(step[key] - other[key]) / max(1, abs(step[key])) for key in NEAR if key in step))
    check(largest < tolerance, f"{what}: losses and gradient norm within {tolerance} (largest {largest:.1e})")


work.sft("two-1", ranks=2, ep=1)
same("two-1", "2 ranks, ep 1")
work.sft("two-2", ranks=2, ep=2)
same("two-2", "2 ranks, ep 2")
work.sft("small", "train.micro_batch=1", "train.recompute=layer")
same("small", "micro-batches of one row, recomputed")
work.sft("seed", "run.seed=4", "train.epochs=null", "train.steps=2")
check(work.metrics("seed")[0]["loss"] != steps[0]["loss"], "another seed is another order")

# Going on.
OVERRIDES = ["train.epochs=null", "train.steps=12", "schedule.total_steps=12"]


def same_run(name, what):
    whole = work.figures("whole")
    for a, b in zip(work.figures(name), whole):
        unequal = {key: (a.get(key), b.get(key)) for key in a | b if a.get(key) != b.get(key)}
        check(not unequal, f"{what}: step {b['step']} has the very figures of a run in one go {unequal or ''}")
    check(len(work.metrics(name)) == len(whole), f"{what}: each step is logged once")
    check(work.weights(name) == work.weights("whole"), f"{what}: the last weights and moments are the same byte for byte")


work.sft("whole", *OVERRIDES, ranks=2, ep=2)
work.sft("halves", *OVERRIDES, "train.steps=5", ranks=2, ep=2)
work.sft("halves", *OVERRIDES, "--resume", ranks=2, ep=2)
same_run("halves", "5 + 7 steps")

seed = int(os.environ.get("COHORT_KILL_SEED", int.from_bytes(os.urandom(4), "little")))
print("COHORT_KILL_SEED =", seed)
rng = random.Random(seed)
for kill in range(2):
    before = work.steps_logged("killed")
    process = subprocess.Popen(command(["sft", "--config", work.sft_config("killed", 2), *OVERRIDES, "--resume"], 2),
                               env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 60
    while work.steps_logged("killed") < before + 2 and process.poll() is None and time.time() < deadline:
        time.sleep(0.005)
    time.sleep(rng.uniform(0, 0.02))
    ranks = ranks_of(process.pid, "sft")
    if ranks:
        os.kill(rng.choice(ranks), signal.SIGKILL)
    process.communicate(timeout=60)
    print(f"ok: kill {kill + 1} after step {work.steps_logged('killed')}, exit code {process.returncode}")
work.sft("killed", *OVERRIDES, "--resume", ranks=2, ep=2)
same_run("killed", "killed twice")

done = work.sft("one", "--resume", f"data.train=[{work.folder}/held.jsonl]", "train.epochs=9")
check("other examples" in done.stderr, "a run that goes on with other examples says so")
