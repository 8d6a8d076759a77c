"""What the end-to-end tests of supervised fine-tuning share: examples of sums, and runs that learn them from a tiny model."""
import gzip
import json
import random

from harness import cohort
from sums import TIMES, Sums

# seq_len leaves out the conversations (their marks are spelt in bytes). The base has no prediction module: it starts anew.
SFT = """
run: {dir: RUN, seed: 3, model: BASE}
mesh: {ep: EP}
model: {num_nextn_predict_layers: 1}
data: {train: [{path: TRAIN, weight: 3}, {path: MORE, weight: 1}], validation: HELD, seq_len: 48}
train: {epochs: 3, global_batch: 8, micro_batch: 2}
optimizer: {lr: 3e-3}
schedule: {warmup_steps: 2}
checkpoint: {save_every: 3}
log: {validate_every: 5}
"""


class Answers(Sums):
    """`train.jsonl`, `more.jsonl.gz` (two of its examples too long) and `held.jsonl` of sums."""

    def __init__(self):
        super().__init__()
        pairs = [(a, b) for a in range(10) for b in range(10)]
        random.Random(2).shuffle(pairs)
        self.write("held.jsonl", [self.example(a, b) for a, b in pairs[:15]])
        self.write("train.jsonl", [self.example(a, b) for a, b in pairs[15:]])
        talk = {"messages": [{"role": "user", "content": "1 + 1 ="}, {"role": "assistant", "content": " 2"}]}
        more = [dict(self.example(a, b), reward=1.0, provenance={"model": "base", "seed": [a, b]}) for a, b in pairs[15:35]]
        with gzip.open(self.folder / "more.jsonl.gz", "wt") as out:
            out.write("".join(json.dumps(one) + "\n" for one in more + [talk, talk]))

    @staticmethod
    def example(a, b):
        steps = " = ".join(f"{a + i} + {b - i}" for i in range(1, b))
        return {"prompt": f"{a} + {b} =", "completion": f" {steps} = {a + b}" if steps and b < 5 else f" {a + b}"}

    def write(self, name, examples):
        path = self.folder / name
        path.write_text("".join(json.dumps(one) + "\n" for one in examples))
        return path

    def sft_config(self, name, ep=1):
        path = self.folder / f"{name}-ep{ep}.yaml"
        text = SFT
        for word, value in [("RUN", self.run(name)), ("BASE", self.run("base")), ("EP", ep), ("TRAIN", self.folder / "train.jsonl"),
                            ("MORE", self.folder / "more.jsonl.gz"), ("HELD", self.folder / "held.jsonl")]:
            text = text.replace(word, str(value))
        path.write_text(text)
        return path

    def sft(self, name, *overrides, ranks=1, ep=1, code=0, **options):
        return cohort("sft", "--config", self.sft_config(name, ep), *overrides, ranks=ranks, code=code, **options)

    def figures(self, name):
        return [{key: value for key, value in step.items() if not key.endswith(TIMES)} for step in self.metrics(name)]
