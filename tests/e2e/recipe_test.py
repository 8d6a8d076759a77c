#!/usr/bin/env python3
"""cohort recipe as a user runs it: each stage once, again when its inputs change, on from where it was stopped."""
import json
import os
import pathlib
import signal
import subprocess
import time

from harness import ENVIRONMENT, MODEL, Workspace, check, cohort, command

work = Workspace()
folder = work.folder
out = folder / "chain"
script = folder / "words.py"
script.write_text("import sys\nopen(sys.argv[1], 'w').write(' '.join(sys.argv[2:]))\n")
config = work.config("none", ep=2)
recipe = folder / "chain.yaml"
RECIPE = f"""
title: A chain <of> stages
dir: {out}
settings: {{steps: 6, word: left}}
stages:
  - name: words
    about: text made by a script
    out: words.txt
    run: python3 {script} ${{out}} ${{word}} 'and right'
  - name: base
    ranks: 2
    run: cohort pretrain --config {config} --resume run.dir=${{out}} train.steps=${{steps}}
  - name: next
    run: cohort pretrain --config {config} mesh.ep=1 --resume --model ${{base}} run.dir=${{out}} train.steps=3
    inputs: ["${{words}}"]
evaluate: {{options: "--task '{{name: arithmetic, max: 9, prompt: \\"{{question}} =\\"}}' --problems 5 --samples 2 --max-new-tokens 4"}}
table:
  - {{model: base, label: Base & all, about: a start}}
  - {{model: next}}
"""
recipe.write_text(RECIPE)


def run(*arguments, code=0):
    return cohort("recipe", recipe, *arguments, code=code)


def listed(*arguments):
    """{stage: standing} as --list tells."""
    lines = run("--list", *arguments).stdout.splitlines()
    return {line.split()[0]: line.split(None, 1)[1] for line in lines if not line.startswith(" ")}


check(set(listed().values()) == {"to do"} and not out.exists(), "--list shows five stages to do and makes nothing")
check(list(listed()) == ["words", "base", "eval-base", "next", "eval-next"], "a model's evaluation follows it")
first = run().stdout
check((out / "words.txt").read_text() == "left and right", "a script ran, its words kept together")
results = {name: json.loads((out / "eval" / f"{name}.json").read_text()) for name in ("base", "next")}
check(all(r["problems"] == 5 and r["parameters"] > r["active_parameters"] > 0 for r in results.values()), "both models were evaluated")
check("Base & all" in first and f"{results['base']['pass_at_1']:.4f}" in first, "the table is printed")
page = (out / "report.html").read_text()
check("Base &amp; all" in page and "A chain &lt;of&gt; stages" in page and "<script" not in page, "report.html holds the table, escaped")
check("step 6/6" in (out / "logs" / "base.log").read_text(), "a stage's output is kept")
check(set(listed().values()) == {"done"}, "all is done")

made = (out / "base" / "checkpoints").stat().st_mtime_ns
second = run().stdout
check(second.count("done already") == 5 and (out / "base" / "checkpoints").stat().st_mtime_ns == made, "nothing runs twice")

run("word=up")
check((out / "words.txt").read_text() == "up and right", "another setting makes its stage anew")
check((out / "replaced" / "words-1").read_text() == "left and right", "what was there before is kept")
check((out / "replaced" / "next-1" / "config.yaml").exists() and not (out / "replaced" / "base-1").exists(),
      "so is the stage that has it as an input made anew, and no other")

(out / "words.txt").write_text("by hand")
check(listed("word=up")["words"].startswith("to do again: its output") and listed("word=up")["base"] == "done", "a changed output is seen")
run("word=up", "--until", "words")
check((out / "words.txt").read_text() == "up and right" and (out / "replaced" / "words-2").read_text() == "by hand",
      "and made again, with what was changed kept")
check(set(listed("word=up").values()) == {"done"}, "to the same bytes, so that what came of it stands")
run("word=up", "--redo", "eval-base", "--until", "eval-base")
check((out / "replaced" / "eval-base-1").exists(), "--redo runs a stage again though nothing changed")

# Stopped by a signal in the middle of a stage: it saves, and the next start goes on with it.
long = [f"dir={folder / 'long'}", "steps=400"]
started = subprocess.Popen(command(["recipe", recipe, *long]), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
metrics = folder / "long" / "base" / "metrics.jsonl"
while started.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") > 12):
    time.sleep(0.05)
busy = cohort("recipe", recipe, *long, code=2)
check("at work there" in busy.stderr, "a second recipe in the same folder is refused")
started.send_signal(signal.SIGTERM)
check(started.wait(60) == 0, f"SIGTERM ends it in order: {started.stderr.read()[-300:]}")
state = json.loads((folder / "long" / "recipe.json").read_text())["stages"]
check(state["words"]["finished"] and not state["base"]["finished"], "the stopped stage is not taken for done")
check(listed(*long)["base"] == "was interrupted", "and --list says so")
run("dir=" + str(folder / "long"), "steps=400", "--until", "base")
log = (folder / "long" / "logs" / "base.log").read_text()
check("step 400/400" in log and not (folder / "long" / "replaced").exists(), "it went on to its end in the same folder")
steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
check(steps == sorted(set(steps)) and steps[-1] == 400, "every step stands once in its metrics")

# Killed: its ranks end too, and the folder is free again.
started = subprocess.Popen(command(["recipe", recipe, f"dir={folder / 'killed'}", "steps=400"]), env=ENVIRONMENT,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
metrics = folder / "killed" / "base" / "metrics.jsonl"
while started.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") > 3):
    time.sleep(0.05)
started.kill()
started.wait()
for _ in range(300):
    done = cohort("recipe", recipe, f"dir={folder / 'killed'}", "steps=400", "--until", "words", code=None)
    if done.returncode == 0:
        break
    time.sleep(0.2)
check(done.returncode == 0 and listed(f"dir={folder / 'killed'}", "steps=400")["base"] == "was interrupted", "kill -9 of the recipe ends its stage")

failing = folder / "failing.yaml"
CASES = [
    ("a stage with bad input", "cohort pretrain --config /no/such.yaml run.dir=${out}", 2, "/no/such.yaml"),
    ("a program that is not there", "no-such-program ${out}", 2, "no-such-program"),
    ("a stage that fails", "python3 -c 'raise SystemExit(\"broken\")'", 1, "broken"),
    ("a stage that makes nothing", "python3 -c pass", 1, "there is no"),
]
for what, run_line, code, word in CASES:
    failing.write_text(f"dir: {folder / 'failing'}\nstages:\n  - name: a\n    run: {run_line}\n")
    done = cohort("recipe", failing, code=code)
    said = done.stderr.strip().splitlines()
    check(len(said) == 1 and word in said[0] and "stage a" in said[0] and said[0].count("cohort:") == 1, f"{what}: {said}")
check(cohort("recipe", recipe, "--until", "nine", code=2).stderr.count("\n") == 1, "an unknown stage: one line")
check("without mpirun" in cohort("recipe", recipe, ranks=2, code=2).stderr, "under mpirun it is refused")
