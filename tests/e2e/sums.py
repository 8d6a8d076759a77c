"""What the end-to-end tests of GRPO share: a tiny model of sums, right about one time in eight, and runs that go on from it."""
import json
import sys

from harness import MODEL, Workspace, cohort

BASE = MODEL.replace("vocab_size: 512", "vocab_size: 280").replace("num_nextn_predict_layers: 1", "num_nextn_predict_layers: 0") + """
run: {dir: RUN, seed: 5}
mesh: {ep: EP}
data: {train: [{path: DATA/train}], validation: DATA/validation, seq_len: 32}
train: {steps: 80, global_batch: 16, micro_batch: 16}
optimizer: {lr: 1e-2}
schedule: {warmup_steps: 5}
"""
# SHAPING is a power of two: sums of rewards are exact in any order. 0 leaves groups without variance.
GRPO = """
run: {dir: RUN, seed: 3, model: BASE}
mesh: {ep: EP}
rl:
  task: {name: arithmetic, max: 9, operations: ["+"], prompt: "{question} ="}
  rewards:
    - math_answer
    - {name: length, weight: SHAPING, max_tokens: 16, cache_tokens: 8}
    - {name: command, label: scribe, weight: SHAPING, command: [PYTHON, SCRIBE, RECORD]}
  prompts_per_step: 4
  group_size: 8
  sampling: {max_new_tokens: 16}
  eval_every: 0
train: {steps: 5, micro_batch: 8}
optimizer: {lr: 1e-3}
schedule: {warmup_steps: 2, total_steps: 5}
checkpoint: {save_every: 0}
log: {samples_every: 1}
"""
# A reward that writes down what it is shown, and when: it sees every completion of its rank, where samples.jsonl has a few.
SCRIBE = """
import json, os, sys, time
record = open(sys.argv[1], "a")

def note(**what):
    record.write(json.dumps(what) + "\\n")
    record.flush()

for line in sys.stdin:
    seen = json.loads(line)
    if seen["index"] == 0:
        note(event="begin")
        time.sleep(float(os.environ.get("SCRIBE_SECONDS", 0)))
    note(prompt=seen["prompt"], completion=seen["completion"], tokens=seen["tokens"])
    print(seen["completion"].count("+"), flush=True)
    if seen["index"] == seen["count"] - 1:
        note(event="end")
"""
TIMES = ("seconds", "_per_second")
# Everything at once: refilled groups, two passes of two updates, KL to a reference that is renewed, cut completions masked.
RICH = ["rl.loss=dapo", "rl.beta=0.05", "rl.reference_every=2", "rl.passes=2", "rl.mini_batches=2", "rl.refill_rounds=2",
        "rl.truncated=mask", "rl.sampling.max_new_tokens=12", "rl.clip_low=0.01", "rl.clip_high=0.01"]


class Sums(Workspace):
    """`base` is a run that was pretrained on sums, told at once or by counting."""

    pretraining = BASE
    vocabulary = 280

    def __init__(self):
        super().__init__()
        (self.folder / "scribe.py").write_text(SCRIBE)
        self.pretrain("base")

    def texts(self):
        for a in range(10):
            for b in range(10):
                yield f"{a} + {b} = {a + b}"
                yield " = ".join([f"{a + i} + {b - i}" for i in range(b)] + [str(a + b)])

    def grpo_config(self, name, ep=1, shaping=0.125):
        path = self.folder / f"{name}-ep{ep}.yaml"
        text = GRPO
        for word, value in [("RUN", self.run(name)), ("BASE", self.run("base")), ("EP", ep), ("SHAPING", shaping), ("PYTHON", sys.executable),
                            ("SCRIBE", self.folder / "scribe.py"), ("RECORD", self.record_path(name))]:
            text = text.replace(word, str(value))
        path.write_text(text)
        return path

    def grpo(self, name, *overrides, ranks=1, ep=1, shaping=0.125, code=0, **options):
        return cohort("grpo", "--config", self.grpo_config(name, ep, shaping), *overrides, ranks=ranks, code=code, **options)

    def record_path(self, name):
        return self.folder / f"{name}.record"

    def record(self, name):
        """What the scribe noted, the notes of all ranks mixed."""
        try:
            return [json.loads(line) for line in self.record_path(name).read_text().splitlines()]
        except FileNotFoundError:
            return []

    def completions(self, name):
        """Every completion that was drawn, sorted."""
        return sorted((note["prompt"], note["completion"], note["tokens"]) for note in self.record(name) if "prompt" in note)

    def samples(self, name):
        return (self.run(name) / "samples.jsonl").read_text()

    def figures(self, name):
        """metrics.jsonl without what is measured by the clock."""
        return [{key: value for key, value in step.items() if not key.endswith(TIMES)} for step in self.metrics(name)]
