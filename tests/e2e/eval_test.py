#!/usr/bin/env python3
"""cohort eval and cohort generate as a user runs them: the same figures on any ranks, files in and out, clear refusals."""
import json
import shutil

from harness import Workspace, check, cohort

work = Workspace()
folder = work.folder
work.pretrain("base", "train.steps=10", "checkpoint.save_every=5")
run = work.run("base")
newest = work.checkpoints("base")[-1]
task = "{name: arithmetic, max: 9, terms: 2, prompt: '{question}='}"
evaluate = ["eval", "--model", run, "--task", task, "--problems", 10, "--samples", 4, "--max-new-tokens", 8]

# Evaluation.
saved = folder / "saved.jsonl"
result = json.loads(cohort(*evaluate, "--json", "--save", saved).stdout)
for key in ["task", "problems", "samples", "pass_at_1", "pass_at_1_ci95", "maj_at_k", "pass_at_k", "categories", "rewards"]:
    check(key in result, f"eval --json says {key}")
low, high = result["pass_at_1_ci95"]
check(result["task"] == "arithmetic" and result["problems"] == 10 and result["samples"] == 4, "eval counts what was asked for")
check(0 <= low <= result["pass_at_1"] <= high <= 1, "pass@1 lies within its interval")
check(result["rewards"].keys() == {"math_answer"} and result["correct"] == "math_answer", "math_answer judges arithmetic")
lines = [json.loads(line) for line in saved.read_text().splitlines()]
check([(line["problem"], line["sample"]) for line in lines] == [(i, j) for i in range(10) for j in range(4)],
      "--save writes every sample of every problem in order")
check(abs(sum(line["correct"] for line in lines) / 40 - result["pass_at_1"]) < 1e-12, "pass@1 is that of the saved lines")
check(all(line["tokens"] <= 8 for line in lines), "no completion is longer than asked")

timing = {"generate_seconds", "generate_tokens_per_second"}
same = lambda a, b: {k: v for k, v in a.items() if k not in timing} == {k: v for k, v in b.items() if k not in timing}
for ranks, ep in [(2, 1), (2, 2)]:
    again = folder / f"saved-{ranks}-{ep}.jsonl"
    other = json.loads(cohort(*evaluate, "--json", "--save", again, "--ep", ep, ranks=ranks).stdout)
    check(same(other, result), f"the same figures on {ranks} ranks with ep={ep}")
    check(again.read_text() == saved.read_text(), f"and the same completions, ep={ep}")
check(json.loads(cohort(*evaluate, "--json", "--seed", 2, "--save", folder / "two.jsonl").stdout)["problems"] == 10
      and (folder / "two.jsonl").read_text() != saved.read_text(), "another seed draws other samples")

config = folder / "rl.yaml"
config.write_text(f"rl:\n  task: {task}\n  rewards: [math_answer, {{name: format, weight: 0.5}}]\n"
                  "  sampling: {max_new_tokens: 8}\nmesh: {ep: 2}\n")
from_config = json.loads(cohort("eval", "--model", newest, "--config", config, "--problems", 10, "--samples", 4, "--json").stdout)
check(from_config["pass_at_1"] == result["pass_at_1"] and "format" in from_config["rewards"], "a config gives task and rewards")
check(json.loads(cohort(*evaluate, "--json", "--precision", "bf16").stdout)["problems"] == 10, "bf16 evaluates too")
text = cohort(*evaluate).stdout
check("pass@1" in text and "maj@4" in text and "95 %" in text, "without --json it is told in words")

# Generation.
generate = ["generate", "--model", run, "--max-new-tokens", 12]
greedy = cohort(*generate, "--prompt", "the", "--temperature", 0)
check(greedy.stdout.endswith("\n") and "tokens/s" in greedy.stderr, "a completion on stdout, counters on stderr")
check(cohort(*generate, "--prompt", "the", "--temperature", 0).stdout == greedy.stdout, "greedy twice is the same")
line = json.loads(cohort(*generate, "--prompt", "the", "--temperature", 0, "--json").stdout)
check(line["completion"] + "\n" == greedy.stdout and line["prompt"] == "the" and line["tokens"] <= 12,
      "what was streamed is the completion")
prompts = folder / "prompts.jsonl"
prompts.write_text("".join(json.dumps({"id": i, "prompt": f"word {i}"}) + "\n" for i in range(5)))
out = folder / "out.jsonl"
cohort(*generate, "--input", prompts, "--output", out, "--samples", 2)
lines = [json.loads(line) for line in out.read_text().splitlines()]
check([(line["id"], line["sample"]) for line in lines] == [(i, j) for i in range(5) for j in range(2)], "a line a sample, fields carried")
for ranks, ep in [(2, 1), (2, 2)]:
    cohort(*generate, "--input", prompts, "--output", folder / "out2.jsonl", "--samples", 2, "--ep", ep, ranks=ranks)
    check((folder / "out2.jsonl").read_text() == out.read_text(), f"the same lines on {ranks} ranks with ep={ep}")
stop = lines[0]["completion"][1:3]
stopped = json.loads(cohort(*generate, "--prompt", "word 0", "--json", "--stop", stop).stdout)
check(stop in stopped["completion"] and len(stopped["completion"]) <= len(lines[0]["completion"]), "a stop text ends a completion")

# Refusals.
broken = folder / "broken.jsonl"
broken.write_text('{"prompt": "a"}\n{"prompt": \n')
bare = folder / "bare"
shutil.copytree(newest, bare)
(bare / "tokenizer.json").unlink()
CASES = [
    ("a model that is not there", ["generate", "--model", folder / "no", "--prompt", "a"], "no such folder"),
    ("a folder that is no model", ["generate", "--model", work.data, "--prompt", "a"], "holds no model"),
    ("a model without a tokenizer", ["generate", "--model", bare, "--prompt", "a"], "tokenizer.json"),
    ("no prompt", generate, "--prompt"),
    ("a broken line", [*generate, "--input", broken], "broken.jsonl:2"),
    ("prompts that are not there", [*generate, "--input", folder / "no.jsonl"], "no.jsonl"),
    ("a prompt that is too long", [*generate, "--prompt", "word " * 100], "--prompt 1: "),
    ("a negative temperature", [*generate, "--prompt", "a", "--temperature=-1"], "temperature"),
    ("top-p above one", [*generate, "--prompt", "a", "--top-p", "1.5"], "top_p"),
    ("an output that cannot be written", [*generate, "--input", prompts, "--output", folder], str(folder)),
    ("eval without a task", ["eval", "--model", run], "--task"),
    ("an unknown task", ["eval", "--model", run, "--task", "chess", "--max-new-tokens", 8], "chess"),
    ("an unknown reward", [*evaluate, "--rewards", "charm"], "charm"),
    ("an unknown judge", [*evaluate, "--correct", "charm"], "charm"),
    ("completions longer than the model", ["eval", "--model", run, "--task", task], "max_new_tokens"),
    ("more problems than there are", ["eval", "--model", run, "--task", task, "--max-new-tokens", 8], "500 were asked for"),
    ("problems that are too long", [*evaluate, "rl.task.prompt=" + "word " * 60 + "{question}"], "64"),
    ("an ep that the ranks do not make", [*evaluate, "--ep", 2], "ep"),
    ("an unknown precision", [*evaluate, "--precision", "fp8"], "fp8"),
    ("an unknown setting", [*evaluate, "rl.groupsize=3"], "rl.group_size"),
]
for what, arguments, word in CASES:
    done = cohort(*arguments, code=2)
    said = [line for line in done.stderr.strip().splitlines() if not line.startswith(("info", "warning"))]
    if len(said) != 1 or word not in said[0]:
        print(done.stderr)
        check(False, f"{what}: one line that says '{word}'")
    print(f"ok: {what}: {said[0][:150]}")
