#!/usr/bin/env python3
"""cohort sample keeps what is good, writes the same file on any mesh and after any kill, and cohort sft learns from it; a
student learns from the stored likeliest tokens too. Bad input: exit code 2 and one line."""
import base64
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time

from harness import ENVIRONMENT, check, cohort, command, ranks_of
from sums import Sums

SAMPLE = """
run: {seed: 3, model: BASE}
mesh: {ep: EP}
rl:
  task: {name: arithmetic, max: 9, operations: ["+"], prompt: "{question} ="}
  rewards:
    - math_answer
    - {name: length, weight: 0.125, max_tokens: 16, cache_tokens: 8}
    - {name: command, label: scribe, weight: 0, command: [PYTHON, SCRIBE, RECORD]}
  sampling: {max_new_tokens: 16}
sample: {out: OUT, prompts: 30, samples_per_prompt: 8, keep_at_least: 0.8, keep_per_prompt: 2, prompts_per_part: 4}
"""
STUDENT = """
run: {dir: RUN, seed: 4}
mesh: {ep: 1}
model: {model_type: qwen3, vocab_size: 280, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 2,
  num_key_value_heads: 1, head_dim: 16, max_position_embeddings: 64, tie_word_embeddings: true}
data: {train: [{path: TRAIN}], tokenizer: TOKENIZER, seq_len: 48}
train: {steps: 12, global_batch: 8, micro_batch: 4}
optimizer: {lr: 1e-2}
schedule: {warmup_steps: 2}
"""


class Samples(Sums):
    def out(self, name):
        return self.folder / f"{name}.jsonl"

    def sample_config(self, name, ep=1):
        path = self.folder / f"{name}-ep{ep}.yaml"
        text = SAMPLE
        for word, value in [("BASE", self.run("base")), ("EP", ep), ("OUT", self.out(name)), ("PYTHON", sys.executable),
                            ("SCRIBE", self.folder / "scribe.py"), ("RECORD", self.record_path("samples"))]:
            text = text.replace(word, str(value))
        path.write_text(text)
        return path

    def sample(self, name, *overrides, ranks=1, ep=1, code=0, **options):
        return cohort("sample", "--config", self.sample_config(name, ep), *overrides, ranks=ranks, code=code, **options)

    def lines(self, name):
        return [json.loads(line) for line in self.out(name).read_text().splitlines()]

    def summary(self, name):
        return json.loads((self.folder / f"{name}.summary.json").read_text())

    def student_config(self, name, train, text=STUDENT):
        path = self.folder / f"{name}.yaml"
        for word, value in [("RUN", self.run(name)), ("TRAIN", train), ("TOKENIZER", self.data / "tokenizer.json")]:
            text = text.replace(word, str(value))
        path.write_text(text)
        return path


work = Samples()
TIMES = ("seconds", "tokens_per_second", "out")
untimed = lambda summary: {key: value for key, value in summary.items() if key not in TIMES}

# What is kept, and what is said of it.
said = json.loads(work.sample("one").stdout)
summary, lines = work.summary("one"), work.lines("one")
check(said == summary, "the summary stands beside the file and on the terminal")
check(summary["prompts"] == 30 and summary["samples"] == 240 and summary["kept"] == len(lines) > 0, f"it counts: {untimed(summary)}")
check(sum(summary[key] for key in ("kept", "below", "truncated_left_out", "empty", "duplicates", "surplus")) == 240,
      "each completion is kept or left out for one reason")
check(0 < summary["pass_rate"] == summary["passed"] / 240 < 1, "some completions are right, some wrong")
check(len({line["problem"] for line in lines}) == summary["prompts_with_kept"], "of several problems")
check(all(line["rewards"]["math_answer"] == 1 and line["reward"] >= 0.8 and not line["truncated"] for line in lines),
      f"kept is what is right and whole, such as {lines[0]['prompt']}{lines[0]['completion']}")
places = [(line["problem"], line["sample"]) for line in lines]
check(all(places.count(place) == 1 for place in places) and max(sum(p == q for q, _ in places) for p, _ in places) == 2,
      "at most two of a problem")
check(len({(line["problem"], " ".join(line["completion"].split())) for line in lines}) == len(lines), "no two of them alike")
check({line["seed"] for line in lines} == {3} and len({line["sample_seed"] for line in lines}) == len(lines)
      and {line["weights"] for line in lines} == {summary["weights"]} and len(summary["weights"]) == 16
      and lines[0]["model"].startswith(str(work.run("base"))), "each line tells where it is from")
check(not (work.folder / "one.jsonl.parts").exists(), "the parts are gone")
before = work.out("one").stat().st_mtime_ns
again = work.sample("one")
check(json.loads(again.stdout) == summary and work.out("one").stat().st_mtime_ns == before, "the same command again finds it finished")

# The same file on any mesh.
work.sample("one-logs", "sample.top_logprobs=5", "sample.keep_at_least=null", "sample.keep_per_prompt=0", "sample.keep_truncated=true",
            "sample.deduplicate=false")
check(work.summary("one-logs")["kept"] + work.summary("one-logs")["empty"] == 240, "without conditions all but the empty are kept")
for name, ranks, ep in (("two-1", 2, 1), ("two-2", 2, 2)):
    work.sample(name, ranks=ranks, ep=ep)
    check(work.out(name).read_bytes() == work.out("one").read_bytes(), f"{ranks} ranks, ep {ep}: the same file, byte for byte")
    check(untimed(work.summary(name)) == untimed(summary), "and the same summary")
work.sample("two-logs", "sample.top_logprobs=5", "sample.keep_at_least=null", "sample.keep_per_prompt=0", "sample.keep_truncated=true",
            "sample.deduplicate=false", "sample.prompts_per_part=7", "rl.max_running=5", ranks=2, ep=2)
check(work.out("two-logs").read_bytes() == work.out("one-logs").read_bytes(), "with the likeliest tokens too, in other parts and batches")
work.sample("random", "sample.choose=random", "sample.keep_per_prompt=1")
work.sample("seed", "run.seed=4")
check(work.out("random").read_bytes() != work.out("one").read_bytes() != work.out("seed").read_bytes(), "another choice and another seed are others")

# The likeliest tokens are what they are said to be.
told = work.lines("one-logs")[0]["teacher"]
unpack = lambda text, kind: [value for value, in struct.iter_unpack("<" + kind, base64.b64decode(text))]
tokens, top, probs = unpack(told["tokens"], "i"), unpack(told["top_tokens"], "i"), unpack(told["top_log_probs"], "f")
check(len(tokens) == work.lines("one-logs")[0]["tokens"] and len(top) == len(probs) == 5 * len(tokens) and max(probs) <= 0
      and all(a >= b for i in range(len(tokens)) for a, b in zip(probs[5 * i:], probs[5 * i + 1:5 * i + 5])), "five a token, the likeliest first")

# Killed at any moment.
seed = int(os.environ.get("COHORT_KILL_SEED", int.from_bytes(os.urandom(4), "little")))
print("COHORT_KILL_SEED =", seed)
rng = random.Random(seed)
ends = lambda: sum(note.get("event") == "end" for note in work.record("samples"))
for kill in range(3):
    begun = ends()
    process = subprocess.Popen(command(["sample", "--config", work.sample_config("killed", 2)], 2),
                               env=dict(ENVIRONMENT, SCRIBE_SECONDS="0.2"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 60
    while ends() < begun + 2 and process.poll() is None and time.time() < deadline:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.4))
    ranks = ranks_of(process.pid, "sample")
    if ranks:
        os.kill(rng.choice(ranks), signal.SIGKILL)
    process.communicate(timeout=60)
    parts = len(list((work.folder / "killed.jsonl.parts").glob("part-*[0-9]"))) if (work.folder / "killed.jsonl.parts").exists() else "all"
    print(f"ok: kill {kill + 1}: exit code {process.returncode}, {parts} parts are there")
    if kill == 0:
        check(not work.out("killed").exists(), "half a result has not the name of a whole one")
        done = work.sample("killed", "run.seed=9", code=2)
        check("run.seed" in done.stderr and "--overwrite" in done.stderr and len(done.stderr.strip().splitlines()) == 1,
              "other settings do not go on with it: " + done.stderr.strip()[-200:])
work.sample("killed")
check(work.out("killed").read_bytes() == work.out("one").read_bytes(), "three kills on two ranks, then one rank: the very same file")
check(untimed(work.summary("killed")) == untimed(summary), "and summary")
work.sample("killed", "run.seed=4", "--overwrite")
check(work.out("killed").read_bytes() == work.out("seed").read_bytes(), "--overwrite begins anew")

# cohort sft reads the file as it is; students start from nothing.
student = work.student_config("student", work.out("one"))
cohort("sft", "--config", student)
steps = work.metrics("student")
check(steps[-1]["lm_loss"] < steps[0]["lm_loss"] and "distill_kl" not in steps[0], "a dense student learns from the file")
cohort("generate", "--model", work.run("student"), "--prompt", "1 + 2 =", "--max-new-tokens", 4)
distill = work.student_config("distilled", work.out("one-logs"))
settings = ["sft.distill.weight=0.8", "sft.distill.divergence=forward_kl", "sft.distill.temperature=1.5", "train.steps=30"]
cohort("sft", "--config", distill, *settings)
steps = work.metrics("distilled")
check(steps[-1]["distill_kl"] < 0.7 * steps[0]["distill_kl"],
      f"and from the likeliest tokens: divergence {steps[0]['distill_kl']:.3f} -> {steps[-1]['distill_kl']:.3f}")
card = json.loads((work.run("distilled") / "data_card.json").read_text())
check(card["sources"][0]["teacher_tokens"] == sum(line["tokens"] for line in work.lines("one-logs")), "the data card counts them")
two = work.student_config("distilled-2", work.out("one-logs"))
cohort("sft", "--config", two, *settings, "train.micro_batch=2", ranks=2)
largest = max(abs(a[key] - b[key]) / max(1, abs(a[key])) for a, b in zip(steps, work.metrics("distilled-2")) for key in ("loss", "lm_loss", "distill_kl"))
check(largest < 1e-3, f"two ranks distil the same (largest difference {largest:.1e})")
reverse = work.student_config("reverse", work.out("one-logs"))
cohort("sft", "--config", reverse, "sft.distill={weight: 1, divergence: reverse_kl}", "train.steps=30")
steps = work.metrics("reverse")
check(steps[-1]["distill_kl"] < steps[0]["distill_kl"] and abs(steps[0]["loss"] - steps[0]["distill_kl"]) < 0.5, "reverse divergence falls too")
dense = work.folder / "dense.yaml"
dense.write_text(work.student_config("dense", "none").read_text().replace("{path: none}", f"{{path: {work.data}/train}}"))
cohort("pretrain", "--config", dense)
check(work.metrics("dense")[-1]["loss"] < work.metrics("dense")[0]["loss"], "cohort pretrain trains the same student from nothing")
v3 = STUDENT.replace(STUDENT[STUDENT.index("model:"):STUDENT.index("data:")], """
model: {vocab_size: 280, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 2, n_routed_experts: 0,
  n_shared_experts: 0, kv_lora_rank: 16, qk_nope_head_dim: 16, qk_rope_head_dim: 8, v_head_dim: 16, max_position_embeddings: 64}
""")
cohort("sft", "--config", work.student_config("mla", work.out("one"), v3))
check(work.metrics("mla")[-1]["loss"] < work.metrics("mla")[0]["loss"], "so does a dense student with MLA")
cohort("sft", "--config", student, "train.steps=14", "--resume")
check(len(work.metrics("student")) == 14, "a student goes on from its own checkpoint")

# Bad input.
other = work.folder / "other-tokenizer"
cohort("data", "prepare", "--out", other, "--train-tokenizer", 262, work.folder / "text.jsonl")
sampled = work.sample_config("bad")
for what, arguments, word in [
    ("no file to write", ["sample", "--config", sampled, "sample.out=null"], "sample.out is not given"),
    ("a file of another kind", ["sample", "--config", sampled, "sample.out=x.txt"], ".jsonl"),
    ("a folder for a file", ["sample", "--config", sampled, f"sample.out={work.folder}/d.jsonl"], "is a folder"),
    ("no model", ["sample", "--config", sampled, "run.model=null"], "--model"),
    ("a model that is not there", ["sample", "--config", sampled, "run.model=/nowhere"], "/nowhere"),
    ("no task", ["sample", "--config", sampled, "rl.task=null"], "task"),
    ("no rewards", ["sample", "--config", sampled, "rl.rewards=[]"], "reward"),
    ("more to keep than is drawn", ["sample", "--config", sampled, "sample.keep_per_prompt=9"], "sample.keep_per_prompt"),
    ("more problems than there are", ["sample", "--config", sampled, "sample.prompts=5000"], "different training problems"),
    ("all problems of a task without end", ["sample", "--config", sampled, "sample.prompts=null"], "sample.prompts is null"),
    ("an unknown choice", ["sample", "--config", sampled, "sample.choose=worst"], "best"),
    ("more tokens than there are", ["sample", "--config", sampled, "sample.top_logprobs=281"], "sample.top_logprobs"),
    ("an unknown key", ["sample", "--config", sampled, "sample.keep=2"], "sample.keep"),
    ("a mesh that the ranks do not make", ["sample", "--config", sampled, "mesh.ep=2"], "ep"),
    ("prompts too long", ["sample", "--config", sampled, "rl.sampling.max_new_tokens=61"], "positions"),
    ("a file that stands there", ["sample", "--config", sampled, "run.seed=9", f"sample.out={work.out('one')}"], "is there already"),
    ("distillation without a teacher", ["sft", "--config", student, "--resume", "sft.distill.weight=0.5"], "sample.top_logprobs"),
    ("another tokenizer's teacher", ["sft", "--config", distill, *settings, f"data.tokenizer={other}/tokenizer.json", f"run.dir={work.folder}/x"],
     "tokenizer"),
    ("an unknown divergence", ["sft", "--config", distill, "sft.distill.divergence=js"], "forward_kl"),
    ("no model and no tokenizer", ["sft", "--config", student, "data.tokenizer=null", f"run.dir={work.folder}/x"], "data.tokenizer"),
]:
    (work.folder / "d.jsonl").mkdir(exist_ok=True)
    done = cohort(*arguments, code=None)
    words = [line for line in done.stderr.strip().splitlines() if not line.startswith(("info", "warning"))]
    check(done.returncode == 2 and len(words) == 1 and word in words[0], f"{what}: {done.returncode}, {words[:3]}")
cohort("sft", "--config", student, f"data.tokenizer={other}/tokenizer.json", f"run.dir={work.folder}/text")
check((work.folder / "text" / "metrics.jsonl").exists(), "for learning from the text alone another tokenizer will do")
