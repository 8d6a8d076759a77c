#!/usr/bin/env python3
"""Rewards that fail cost their samples and not the run; bad input is refused in one line and blocks nothing."""
import os
import shutil
import signal
import subprocess
import sys
import time

from harness import ENVIRONMENT, check, cohort, command
from sums import Sums

work = Sums()
folder = work.folder
base = work.checkpoints("base")[-1]


def program(name, text):
    path = folder / name
    path.write_text(text)
    return f"[{sys.executable}, {path}]"


def rewards(what, **options):
    options = "".join(f", {key}: {value}" for key, value in options.items())
    return f"rl.rewards=[math_answer, {{name: command, command: {what}{options}}}]"


# A reward command that fails.
FAILING = [
    ("exits 1", rewards("exit 1"), 1, 1),
    ("exits 1 before it is asked, as a shell that is started for each batch", rewards("exit 1", keep="false"), 1, 1),
    ("prints garbage", rewards(program("garbage.py", "import sys\nfor line in sys.stdin: print('no number', flush=True)\n")), 1, 1),
    ("prints garbage and bytes that are no text", rewards(program(
        "bytes.py", "import os\nwhile True:\n  os.write(1, bytes(range(256)) * 100)\n"), seconds=5), 1, 1),
    ("sleeps for ever", rewards("exec sleep 1000", seconds=1), 1, 1),
    ("exits 1 on two ranks", rewards("exit 1"), 2, 2),
]
for i, (what, setting, ranks, ep) in enumerate(FAILING):
    done = work.grpo(f"failing-{i}", setting, "train.steps=3", ranks=ranks, ep=ep)
    steps = work.metrics(f"failing-{i}")
    check([step["step"] for step in steps] == [1, 2, 3], f"a reward that {what}: the run goes on")
    check(all(step["reward_failures"] == 32 and step["reward/command"] == 0 for step in steps), f"a reward that {what}: each step counts 32 failures")
    check(any(step["reward/math_answer"] > 0 and step["reward_mean"] == step["reward/math_answer"] for step in steps),
          f"a reward that {what}: and the other reward still counts")
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning")]
    check(len(warnings) == 1 and "reward command" in warnings[0], f"a reward that {what}: one warning: {warnings}")

once = folder / "once"
done = work.grpo("recovers", rewards(program("recovers.py", f"""
import os, sys
if not os.path.exists({str(once)!r}):
    open({str(once)!r}, "w").close()
    sys.exit(1)
for line in sys.stdin: print(0.5, flush=True)
""")), "train.steps=3")
check([step["reward_failures"] for step in work.metrics("recovers")] == [32, 0, 0]
      and [step["reward/command"] for step in work.metrics("recovers")] == [0, 0.5, 0.5], "a reward that fails once is started again")

# The programs end with the run, however that ends.
lasting = folder / "lasting.py"
program("lasting.py", "import time\ntime.sleep(1000)\n")
process = subprocess.Popen(command(["grpo", "--config", work.grpo_config("killed"), rewards(f"[{sys.executable}, {lasting}]")]),
                           env=ENVIRONMENT, stderr=subprocess.DEVNULL)


def running():
    return subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True).stdout.count(f"{sys.executable} {lasting}")


def wait_for(count):
    deadline = time.time() + 30
    while running() != count and time.time() < deadline:
        time.sleep(0.05)
    return running() == count


check(wait_for(1), "a reward command is at work")
os.kill(process.pid, signal.SIGKILL)
process.wait()
check(wait_for(0), "it ends when its run is killed")

# Bad input. All in one folder, which a corrected run can still use.
bare = folder / "bare"
shutil.copytree(base, bare)
(bare / "tokenizer.json").unlink()
big = folder / "big"
(folder / "words.txt").write_text(" ".join(f"{a}-{b} words of many kinds" for a in range(50) for b in range(50)))
cohort("data", "prepare", "--out", big, "--train-tokenizer", 400, folder / "words.txt")
config = work.grpo_config("bad")


def task(text):
    return f"rl.task={{name: arithmetic, {text}}}"


CASES = [
    ("no model to start from", ["run.model=null"], 1, "--model"),
    ("no model, and nothing to resume", ["run.model=null", "--resume"], 1, "--model"),
    ("a model that is not there", [f"run.model={folder}/none"], 1, "none"),
    ("a folder that is no model", ["--model", work.data], 1, "config.json"),
    ("a model without a tokenizer", ["--model", bare], 1, "tokenizer"),
    ("a tokenizer that is not there", ["data.tokenizer=/nowhere/t.json"], 1, "/nowhere/t.json"),
    ("a tokenizer that is no tokenizer", [f"data.tokenizer={folder}/text.jsonl"], 1, "text.jsonl"),
    ("a tokenizer of another model", [f"data.tokenizer={big}/tokenizer.json"], 1, "do not belong together"),
    ("prompts that two ranks cannot share", ["rl.prompts_per_step=5"], 2, "prompts_per_step"),
    ("prompts that updates cannot share", ["rl.prompts_per_step=4", "rl.mini_batches=3"], 1, "mini_batches"),
    ("temperature 0", ["rl.sampling.temperature=0"], 1, "temperature"),
    ("groups of one", ["rl.group_size=1"], 1, "group_size"),
    ("no task", ["rl.task=null"], 1, "rl.task"),
    ("an unknown task", ["rl.task=chess"], 1, "chess"),
    ("an unknown option of a task", [task("maximum: 9")], 1, "maximum"),
    ("a wrong type of an option", [task("max: nine")], 1, "max"),
    ("a task file that is not there", ["rl.task={name: jsonl, path: /nowhere/p.jsonl}"], 1, "/nowhere/p.jsonl"),
    ("a prompt with an unknown field", [task("prompt: '{riddle}'")], 1, "riddle"),
    ("prompts longer than the model", [task("prompt: '" + "1 + " * 60 + "{question}'")], 1, "64"),
    ("prompts longer than the model, on two ranks", [task("prompt: '" + "1 + " * 60 + "{question}'"), "mesh.ep=2"], 2, "64"),
    ("no rewards", ["rl.rewards=[]"], 1, "rl.rewards"),
    ("an unknown reward", ["rl.rewards=[charm]"], 1, "charm"),
    ("an unknown option of a reward", ["rl.rewards=[{name: format, tags: x}]"], 1, "tags"),
    ("two rewards of one name", ["rl.rewards=[math_answer, math_answer]"], 1, "math_answer"),
    ("a reward command that is not there", [rewards("[/nowhere/judge]")], 1, "/nowhere/judge"),
    ("an unknown loss", ["rl.loss=ppo"], 1, "dr_grpo"),
    ("an unknown setting", ["rl.groupsize=3"], 1, "rl.group_size"),
    ("completions longer than the model", ["rl.sampling.max_new_tokens=64"], 1, "max_new_tokens"),
    ("more held-out problems than there are", ["rl.eval_every=1", "rl.eval_problems=500"], 1, "500"),
    ("a mesh that the ranks do not make", ["mesh.ep=2"], 1, "ep"),
    ("a model section of another model", ["model.hidden_size=64"], 1, "model.embed_tokens.weight"),
    ("a cache that does not hold a sequence", ["rl.cache_tokens=20"], 1, "cache"),
    ("a run of another kind to resume", [f"run.dir={work.run('base')}", "--resume"], 1, "pretrain"),
]
for what, overrides, ranks, word in CASES:
    done = cohort("grpo", "--config", config, *overrides, ranks=ranks, code=None)
    lines = done.stderr.strip().splitlines()
    said = [line for line in lines if line.startswith("cohort:") or ranks == 1 and not line.startswith(("info", "warning"))]
    # Of a model's tensors each at fault has its line.
    many = word == "model.embed_tokens.weight"
    if done.returncode != 2 or (len(said) != 1) != many or word not in said[0] or len(said[0]) > 1000:
        print(done.returncode, done.stderr[-3000:])
        check(False, f"{what}: exit code 2 and one line that says '{word}'")
    print(f"ok: {what}: {said[0][:170]}")
work.grpo("bad", "train.steps=1")
check(len(work.metrics("bad")) == 1, "the corrected run starts in the same folder")
