#!/usr/bin/env python3
"""SIGTERM and SIGINT save and end the run with exit code 0, for one process and under mpirun."""
import signal
import subprocess
import time

from harness import ENVIRONMENT, Workspace, check, cohort, command

work = Workspace()


def wait_for_step(name, step):
    deadline = time.time() + 120
    while time.time() < deadline:
        try:
            if len(work.metrics(name)) >= step:
                return
        except (FileNotFoundError, ValueError):
            pass
        time.sleep(0.05)
    check(False, f"{name} reaches step {step} within 120 s")


for number, name in ((signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT")):
    run = f"alone-{name}"
    process = subprocess.Popen(
        command(["pretrain", "--config", work.config(run), "train.steps=100000", "checkpoint.save_every=0"]),
        env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    wait_for_step(run, 3)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    check(process.returncode == 0, f"{name}: exit code 0 (is {process.returncode})")
    last = work.metrics(run)[-1]["step"]
    check(work.checkpoints(run)[-1].name == f"step-{last:08d}", f"{name}: a checkpoint of the last step, {last}")
    work.pretrain(run, f"train.steps={last + 2}", "--resume")
    check(work.metrics(run)[-1]["step"] == last + 2, f"{name}: and the run goes on")

run = "ranks"
process = subprocess.Popen(
    command(["pretrain", "--config", work.config(run, 2), "train.steps=100000", "checkpoint.save_every=0"], ranks=2),
    env=dict(ENVIRONMENT, OMPI_MCA_odls_base_sigkill_timeout="15"), stderr=subprocess.PIPE, text=True)
wait_for_step(run, 3)
process.send_signal(signal.SIGTERM)
process.communicate(timeout=120)
last = work.metrics(run)[-1]["step"]
check(work.checkpoints(run)[-1].name == f"step-{last:08d}", f"SIGTERM to mpirun: a checkpoint of the last step, {last}")
cohort("inspect", work.checkpoints(run)[-1], "--verify")
