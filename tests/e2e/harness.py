"""What the end-to-end tests share: a tiny run on made-up text, driven through the binary as a user would.

Every test is a script: `NAME_test.py BINARY`; it prints what it checked and exits non-zero when a check fails.
"""
import hashlib
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

BINARY = os.path.abspath(sys.argv[1])
ENVIRONMENT = dict(
    os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_rmaps_base_oversubscribe="1",
    OMPI_MCA_hwloc_base_binding_policy="none", OMPI_MCA_mpi_yield_when_idle="1",
    OMPI_MCA_btl_vader_single_copy_mechanism="none", OMPI_MCA_odls_base_sigkill_timeout="2", OMP_NUM_THREADS="1")

MODEL = """
model: {vocab_size: 512, hidden_size: 32, intermediate_size: 64, moe_intermediate_size: 32, num_hidden_layers: 3,
  num_attention_heads: 2, n_routed_experts: 8, num_experts_per_tok: 2, n_group: 4, topk_group: 2, n_shared_experts: 1,
  first_k_dense_replace: 1, q_lora_rank: 24, kv_lora_rank: 16, qk_nope_head_dim: 16, qk_rope_head_dim: 8, v_head_dim: 16,
  num_nextn_predict_layers: 1, max_position_embeddings: 64}
"""
CONFIG = MODEL + """
run: {dir: RUN, seed: 5}
mesh: {ep: EP}
data: {train: [{path: DATA/train}], validation: DATA/validation, seq_len: 32}
train: {steps: 40, global_batch: 8, micro_batch: 2}
optimizer: {lr: 3e-3}
schedule: {warmup_steps: 5, total_steps: 40}
checkpoint: {save_every: 10, keep: 3}
log: {validate_every: 20}
"""


def check(condition, message):
    """Ends the test when `condition` does not hold."""
    if not condition:
        print("FAILED:", message)
        sys.exit(1)
    print("ok:", message)


def command(arguments, ranks=1):
    launcher = ["mpirun", "-n", str(ranks)] if ranks > 1 else []
    return launcher + [BINARY] + [str(a) for a in arguments]


def cohort(*arguments, ranks=1, code=0, **options):
    """Runs the binary; its exit code must be `code` (None: any)."""
    done = subprocess.run(command(arguments, ranks), env=ENVIRONMENT, text=True, capture_output=True, timeout=600, **options)
    if code is not None and done.returncode != code:
        print(done.stdout[-2000:], done.stderr[-6000:])
        check(False, f"exit code {done.returncode}, not {code}, of: cohort {' '.join(map(str, arguments))} on {ranks} ranks")
    return done


def ranks_of(mpirun, subcommand):
    """Process ids of the ranks that a running mpirun has started."""
    out = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(mpirun)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in out.splitlines() if f" {subcommand} " in line]


class Workspace:
    """A temporary folder with token sets of a made-up language in which words follow each other by rule."""

    pretraining = CONFIG
    vocabulary = 512

    def __init__(self):
        self.holder = tempfile.TemporaryDirectory(prefix="cohort-e2e-")
        self.folder = pathlib.Path(self.holder.name)
        self.data = self.folder / "data"
        self.data.mkdir()
        (self.folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in self.texts()))
        cohort("data", "prepare", "--out", self.data, "--train-tokenizer", self.vocabulary, "--validation-fraction", 0.05,
               self.folder / "text.jsonl")

    def texts(self):
        rng = random.Random(1)
        words = ["".join(rng.choice("aeioulnrst") for _ in range(rng.randint(2, 7))) for _ in range(200)]
        for _ in range(1500):
            word = rng.randrange(200)
            text = []
            for _ in range(rng.randint(5, 60)):
                text.append(words[word])
                word = (word * 7 + rng.choice([1, 2, 3])) % 200
            yield " ".join(text) + "."

    def config(self, name, ep=1):
        """Writes a config for run `name` and returns its path."""
        path = self.folder / f"{name}-ep{ep}.yaml"
        path.write_text(self.pretraining.replace("RUN", str(self.run(name))).replace("DATA", str(self.data)).replace("EP", str(ep)))
        return path

    def run(self, name):
        return self.folder / name

    def pretrain(self, name, *overrides, ranks=1, ep=1, code=0, **options):
        return cohort("pretrain", "--config", self.config(name, ep), *overrides, ranks=ranks, code=code, **options)

    def metrics(self, name):
        with open(self.run(name) / "metrics.jsonl") as file:
            return [json.loads(line) for line in file]

    def steps_logged(self, name):
        """The last step in metrics.jsonl, of a run that is perhaps writing to it."""
        try:
            return self.metrics(name)[-1]["step"]
        except (FileNotFoundError, ValueError, IndexError):
            return 0

    def checkpoints(self, name):
        return sorted(p for p in (self.run(name) / "checkpoints").iterdir() if p.name.startswith("step-"))

    def weights(self, name):
        """{tensor: sha256 of its bytes} of the newest checkpoint, whatever the split over files."""
        found = {}
        for shard in sorted(self.checkpoints(name)[-1].glob("*.safetensors")):
            for tensor, data in read_safetensors(shard).items():
                found[tensor] = hashlib.sha256(data).hexdigest()
        return found


def read_safetensors(path):
    """{name: bytes} of a file."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + size])
    return {name: raw[8 + size + entry["data_offsets"][0]:8 + size + entry["data_offsets"][1]]
            for name, entry in header.items() if name != "__metadata__"}
