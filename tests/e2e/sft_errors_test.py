#!/usr/bin/env python3
"""Bad input to cohort sft: exit code 2 and one line that says what, where and what would be right."""
import json
import shutil

from answers import Answers
from harness import check, cohort

work = Answers()
folder = work.folder
base = work.checkpoints("base")[-1]
bare = folder / "bare"
shutil.copytree(base, bare)
(bare / "tokenizer.json").unlink()
good = json.dumps(work.example(1, 2)) + "\n"


def lines(name, text):
    path = folder / f"bad-{name}.jsonl"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return f"data.train=[{path}]"


cut = folder / "cut.jsonl.gz"
cut.write_bytes((folder / "more.jsonl.gz").read_bytes()[:150])
# what, overrides, ranks, what the line says
CASES = [
    ("no examples", ["data.train=[]"], 1, "data.train"),
    ("a file that is not there", [f"data.train=[{folder}/none.jsonl]"], 1, "none.jsonl: there is no such file"),
    ("a file that is not there, on two ranks", [f"data.train=[{folder}/none.jsonl]"], 2, "none.jsonl"),
    ("a token set for examples", [f"data.train=[{work.data}/train]"], 1, "JSONL"),
    ("a folder for examples", [f"data.train=[{folder}]"], 1, "is a folder"),
    ("an empty file", [lines("empty", "")], 1, "bad-empty.jsonl:1"),
    ("no JSON", [lines("text", good + "\n1 + 2 = 3\n")], 1, "bad-text.jsonl:3"),
    ("a cut line", [lines("half", good + good[:20])], 1, "bad-half.jsonl:2"),
    ("bytes that are no text", [lines("bytes", b'{"prompt": "\xff", "completion": "x"}\n')], 1, "bad-bytes.jsonl:1"),
    ("a cut gzip stream", [f"data.train=[{cut}]"], 1, "gzip"),
    ("neither completion nor messages", [lines("keys", good + '{"text": "a"}\n')], 1, "bad-keys.jsonl:2: neither completion nor messages"),
    ("both", [lines("both", '{"prompt": "a", "completion": "b", "messages": []}\n')], 1, "bad-both.jsonl:1: both"),
    ("an empty completion", [lines("nothing", good * 4 + '{"prompt": "a", "completion": ""}\n')], 1, "bad-nothing.jsonl:5: the completion is empty"),
    ("a completion that is a number", [lines("number", '{"prompt": "a", "completion": 3}\n')], 1, "bad-number.jsonl:1: completion is number"),
    ("no prompt", [lines("prompt", '{"completion": "b"}\n')], 1, "without a prompt"),
    ("a conversation without an assistant", [lines("mute", '{"messages": [{"role": "user", "content": "a"}]}\n')], 1, "no assistant speaks"),
    ("an unknown role", [lines("role", '{"messages": [{"role": "robot", "content": "a"}]}\n')], 1, "robot"),
    ("a message without content", [lines("content", '{"messages": [{"role": "user"}]}\n')], 1, "messages[0]"),
    ("a bad held-out file", ["data.validation=" + lines("held", "x\n")[len("data.train=["):-1]], 1, "bad-held.jsonl:1"),
    ("examples that are all too long", ["data.seq_len=3"], 1, "data.seq_len=3"),
    ("rows longer than the model", ["data.seq_len=65"], 1, "max_position_embeddings"),
    ("steps and epochs", ["train.steps=5"], 1, "want one, the other null"),
    ("neither steps nor epochs", ["train.epochs=null", "train.steps=null"], 1, "train.steps"),
    ("no epochs at all", ["train.epochs=0"], 1, "train.epochs"),
    ("a batch that ranks cannot share", ["train.global_batch=6"], 2, "train.global_batch=6"),
    ("no model to start from", ["run.model=null"], 1, "--model"),
    ("a model that is not there", [f"run.model={folder}/none"], 1, "none"),
    ("a model without a tokenizer", ["--model", bare], 1, "tokenizer"),
    ("a tokenizer that is not there", ["data.tokenizer=/nowhere/t.json"], 1, "/nowhere/t.json"),
    ("a model section of another model", ["model.hidden_size=64"], 1, "model.embed_tokens.weight"),
    ("an unknown setting", ["data.packing=true"], 1, "data.packing"),
    ("a mesh that the ranks do not make", ["mesh.ep=2"], 1, "ep"),
    ("a run of another kind to resume", [f"run.dir={work.run('base')}", "--resume"], 1, "pretrain"),
]
config = work.sft_config("bad")
for what, overrides, ranks, word in CASES:
    done = cohort("sft", "--config", config, *overrides, ranks=ranks, code=None)
    said = [line for line in done.stderr.strip().splitlines()
            if line.startswith("cohort:") or ranks == 1 and not line.startswith(("info", "warning"))]
    # Of a model's tensors each at fault has its line.
    many = word == "model.embed_tokens.weight"
    if done.returncode != 2 or (len(said) != 1) != many or word not in said[0] or len(said[0]) > 1000:
        print(done.returncode, done.stderr[-3000:])
        check(False, f"{what}: exit code 2 and one line that says '{word}'")
    print(f"ok: {what}: {said[0][:170]}")
for subcommand, config_path in [("pretrain", work.config("epochs")), ("grpo", work.grpo_config("epochs"))]:
    done = cohort(subcommand, "--config", config_path, "train.steps=null", "train.epochs=2", code=2)
    check("train.epochs=2" in done.stderr, f"{subcommand} takes no epochs")
work.sft("bad", "train.epochs=null", "train.steps=1")
check(len(work.metrics("bad")) == 1, "the corrected run starts in the same folder")
