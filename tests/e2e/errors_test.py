#!/usr/bin/env python3
"""Bad config, data, tokenizer and checkpoint: exit code 2 and one helpful line on stderr, every time."""
import shutil

from harness import Workspace, check, cohort

work = Workspace()
folder, config = work.folder, work.config("run")
work.pretrain("trained", "train.steps=10")
trained = work.checkpoints("trained")[-1]


def written(name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def copied(name, change):
    """A copy of the token set whose files `change(folder)` then spoils; its prefix."""
    shutil.copytree(work.data, folder / name)
    change(folder / name)
    return folder / name / "train"


def cut(name, count):
    def change(where):
        path = where / name
        path.write_bytes(path.read_bytes()[:-count])
    return change


def overwrite(name, offset, content):
    def change(where):
        raw = bytearray((where / name).read_bytes())
        raw[offset:offset + len(content)] = content
        (where / name).write_bytes(raw)
    return change


def spoiled(name, file, change):
    shutil.copytree(trained, folder / name)
    path = folder / name / file
    path.write_bytes(change(path.read_bytes()))
    return folder / name


def pretrain(*overrides, path=config):
    return ["pretrain", "--config", path, *overrides]


def train_on(prefix):
    return pretrain(f"data.train=[{{path: {prefix}}}]")


yaml = config.read_text()
tokenizer = (work.data / "tokenizer.json").read_text()
text = written("text.txt", "some text\n")

# what, arguments, a word that the line must hold
CASES = [
    ("no subcommand", [], "subcommand"),
    ("an unknown subcommand", ["pretain"], "pretain"),
    ("an unknown option", pretrain("--fast"), "--fast"),
    ("a config that is not there", pretrain(path=folder / "no.yaml"), "no.yaml"),
    ("a config that is a folder", pretrain(path=folder), str(folder)),
    ("a config that is no YAML", pretrain(path=written("broken.yaml", "train: [1, 2\nmodel: }")), "broken.yaml:"),
    ("an unknown key", pretrain(path=written("key.yaml", yaml.replace("micro_batch", "microbatch"))), "micro_batch"),
    ("an unknown override", pretrain("train.step=5"), "train.steps"),
    ("an override without a value", pretrain("train.steps"), "train.steps"),
    ("a wrong type", pretrain("train.steps=many"), "train.steps"),
    ("a number out of range", pretrain("optimizer.lr=-1"), "optimizer.lr"),
    ("an unknown choice", pretrain("train.precision=fp16"), "bf16"),
    ("a mesh that the ranks do not make", pretrain("mesh.dp=3", "train.global_batch=12"), "mesh.dp"),
    ("ep that divides no dp", pretrain("mesh.ep=2"), "mesh.ep"),
    ("ep that divides no experts", pretrain("mesh.ep=3"), "n_routed_experts"),
    ("pipeline stages", pretrain("mesh.pp=2"), "mesh.pp"),
    ("more experts a token than there are", pretrain("model.num_experts_per_tok=9"), "num_experts_per_tok"),
    ("groups that do not divide the experts", pretrain("model.n_group=3"), "n_group"),
    ("an odd rotating size", pretrain("model.qk_rope_head_dim=7"), "qk_rope_head_dim"),
    ("a batch that micro-batches do not make", pretrain("train.micro_batch=3"), "micro_batch"),
    ("a device that is not there", pretrain("run.device=cuda"), "cuda"),
    ("no training data", pretrain("data.train=[]"), "data.train"),
    ("a token set that is not there", train_on(folder / "nothing"), "nothing"),
    ("a cut .bin", train_on(copied("cut-bin", cut("train.bin", 1000))), "train.bin"),
    ("a cut .idx", train_on(copied("cut-idx", cut("train.idx", 10))), "train.idx"),
    ("an .idx of another kind", train_on(copied("magic", overwrite("train.idx", 0, b"WRONG"))), "train.idx"),
    ("a token beyond the vocabulary", train_on(copied("token", overwrite("train.bin", 40, b"\xff\xff"))), "65535"),
    ("rows longer than the set", pretrain("data.seq_len=2000000", "model.max_position_embeddings=3000000"), "seq_len"),
    ("a validation set that is not there", pretrain("data.validation=/nowhere/set"), "/nowhere/set"),
    ("a tokenizer that is not there", pretrain("data.tokenizer=/nowhere/t.json"), "/nowhere/t.json"),
    ("a run folder below a file", pretrain(f"run.dir={text}/run"), "text.txt"),
    ("a folder that holds a run", ["pretrain", "--config", work.config("trained")], "--resume"),
    ("a resumed run with another model",
     ["pretrain", "--config", work.config("trained"), "--resume", "model.hidden_size=64"], "hidden_size"),
    ("a resumed run with another optimizer",
     ["pretrain", "--config", work.config("trained"), "--resume", "optimizer.name=muon"], "optimizer.name"),
    ("nothing to prepare", ["data", "prepare", "--out", folder / "o", "--train-tokenizer", 300, folder / "none.txt"], "none.txt"),
    ("a tokenizer that is cut", ["data", "prepare", "--out", folder / "o", "--tokenizer",
                                 written("cut.json", tokenizer[:5000]), text], "cut.json"),
    ("a tokenizer of another kind", ["data", "prepare", "--out", folder / "o", "--tokenizer",
                                     written("kind.json", tokenizer.replace('"BPE"', '"Unigram"')), text], "Unigram"),
    ("a broken line when asked to fail", ["data", "prepare", "--out", folder / "o", "--tokenizer", work.data / "tokenizer.json",
                                          "--on-error", "fail", written("bad.jsonl", '{"text": "a"}\n{"text": \n')], "bad.jsonl:2"),
    ("a vocabulary that is too small", ["tokenizer", "train", "--vocab-size", 10, "--out", folder / "t.json", text], "10"),
    ("text for a tokenizer that is not there", ["tokenizer", "encode", "--tokenizer", folder / "no.json", "--text", "a"], "no.json"),
    ("an id that no token has", ["tokenizer", "decode", "--tokenizer", work.data / "tokenizer.json", "99999"], "99999"),
    ("a token set to look into that is not there", ["data", "inspect", folder / "nothing"], "nothing"),
    ("a checkpoint that is not there", ["inspect", folder / "nothing"], "nothing"),
    ("a folder that is no checkpoint", ["inspect", work.data], "data"),
    ("a manifest that is no JSON", ["inspect", spoiled("manifest", "manifest.json", lambda raw: raw[:50])], "manifest.json"),
    ("a shard with a flipped bit", ["inspect", "--verify", spoiled(
        "flipped", "model-00001-of-00001.safetensors", lambda raw: raw[:-9] + bytes([raw[-9] ^ 1]) + raw[-8:])], "model-00001"),
    ("a shard with a broken header", ["inspect", "--verify", spoiled(
        "header", "model-00001-of-00001.safetensors", lambda raw: raw[:8] + b"[" + raw[9:])], "model-00001"),
    ("a folder that is no run", ["report", work.data], "data"),
]

for what, arguments, word in CASES:
    done = cohort(*arguments, code=2)
    lines = done.stderr.strip().splitlines()
    said = [line for line in lines if not line.startswith(("info", "warning"))]
    if len(said) != 1 or word not in said[0] or "terminate called" in done.stderr:
        print(done.stderr)
        check(False, f"{what}: one line that says '{word}'")
    print(f"ok: {what}: {said[0][:150]}")
check(len(CASES) >= 25, f"{len(CASES)} kinds of bad input, each one line and exit code 2")

done = work.pretrain("ranks", "mesh.ep=3", ranks=2, code=None)
mine = [line for line in done.stderr.splitlines() if line.startswith("cohort:")]
check(done.returncode == 2 and len(mine) == 1, "two ranks with the same mistake: one line, exit code 2")
