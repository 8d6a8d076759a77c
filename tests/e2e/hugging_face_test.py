#!/usr/bin/env python3
"""Hugging Face folders in and out: every fault of a folder named at once and at once, conversion that no mesh can be
seen in, and training that goes on from a converted checkpoint."""
import json
import shutil
import struct
import time

from harness import Workspace, check, cohort, read_safetensors

work = Workspace()
folder = work.folder
work.pretrain("one", "train.steps=3", "checkpoint.save_every=3")
work.pretrain("two", "train.steps=3", "checkpoint.save_every=3", ranks=2, ep=2)


def convert(source, name, *options, to="hf", **more):
    cohort("convert", "--to", to, source, folder / name, *options, **more)
    return folder / name


def content(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


# From a mesh to a folder.
plain = convert(work.run("one"), "plain")
check({"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} == set(content(plain)),
      "an export is what transformers opens")
sharded = convert(work.run("two"), "sharded", "--shard-size", "100kB")
check(len(list(sharded.glob("model-*.safetensors"))) > 3, "shards are as large as asked for")
whole, parts = read_safetensors(plain / "model.safetensors"), {}
for shard in sharded.glob("model-*.safetensors"):
    parts.update(read_safetensors(shard))
check(set(whole) == set(parts) and "model.layers.3.eh_proj.weight" in whole, "both meshes give the same names, the prediction module's too")

# The same weights written by one rank and by two: a run of no step from the converted checkpoint on each mesh.
start = convert(plain, "start", to="cohort")
for name, ranks in (("again-one", 1), ("again-two", 2)):
    target = work.run(name) / "checkpoints"
    target.mkdir(parents=True)
    shutil.copytree(start, target / "step-00000000")
    work.pretrain(name, "train.steps=1", "--resume", "optimizer.lr=1e-30", "optimizer.weight_decay=0", "router.bias_update_speed=0",
                  ranks=ranks, ep=ranks)
    check(work.metrics(name)[0]["step"] == 1, f"--resume goes on from a converted checkpoint on {ranks} rank(s)")
exports = [content(convert(work.run(name), f"{name}-hf")) for name in ("again-one", "again-two")]
check(exports[0] == exports[1], "an export of one rank's checkpoint is byte for byte that of two ranks'")
losses = [work.metrics(name)[0]["loss"] for name in ("again-one", "again-two")]
check(abs(losses[0] - losses[1]) < 1e-5, f"and so is the loss after it: {losses}")
check(content(convert(convert(plain, "there", to="cohort"), "back")) == content(plain), "there and back again is the same, file by file")
done = cohort("generate", "--model", start, "--prompt", "a", "--max-new-tokens", 4, "--temperature", 0)
check(done.stdout == cohort("generate", "--model", plain, "--prompt", "a", "--max-new-tokens", 4, "--temperature", 0).stdout,
      "generate reads both kinds alike")


# What is carried along goes through training.
(plain / "chat_template.jinja").write_text("{{ messages }}")
work.pretrain("trained", "--model", plain, "train.steps=1")
trained = content(work.checkpoints("trained")[-1])
carried = ("chat_template.jinja", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
check(all(trained.get(name) == content(plain)[name] for name in carried), "tokenizer, template and generation_config stand in checkpoints of a run")
(plain / "chat_template.jinja").unlink()


# Faults: exit 2, one line each, within a second.
def spoiled(name, change, source=plain):
    shutil.copytree(source, folder / name)
    change(folder / name)
    return folder / name


def edit_json(file, change):
    def apply(where):
        document = json.loads((where / file).read_text())
        change(document)
        (where / file).write_text(json.dumps(document))
    return apply


def edit_tensor(name, dtype, values):
    """Overwrites the first values of a tensor."""
    def apply(where):
        path = where / "model.safetensors"
        raw = bytearray(path.read_bytes())
        size = int.from_bytes(raw[:8], "little")
        at = 8 + size + json.loads(raw[8:8 + size])[name]["data_offsets"][0]
        packed = struct.pack(f"<{len(values)}{dtype}", *values)
        raw[at:at + len(packed)] = packed
        path.write_bytes(raw)
    return apply


def edit_header(change):
    def apply(where):
        path = where / "model.safetensors"
        raw = path.read_bytes()
        size = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8:8 + size])
        change(header)
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size:])
    return apply


def cut(where):
    path = sorted(where.glob("model-*.safetensors"))[1]
    path.write_bytes(path.read_bytes()[:-10])


def rename(header):
    header["model.norm.waight"] = header.pop("model.norm.weight")


def reshape(header):
    rows, columns = header["lm_head.weight"]["shape"]
    header["lm_head.weight"]["shape"] = [columns, rows]


second = sorted(p.name for p in sharded.glob("model-*.safetensors"))[1]
some = next(iter(read_safetensors(sharded / second)))
third = sorted(p.name for p in sharded.glob("model-*.safetensors"))[2]
cases = {
    "cut": (spoiled("cut", cut, sharded), [f"{second}: holds"]),
    "no-shard": (spoiled("no-shard", lambda where: (where / second).unlink(), sharded), [f"cannot open {folder}/no-shard/{second}"]),
    "no-entry": (spoiled("no-entry", edit_json("model.safetensors.index.json", lambda d: d["weight_map"].pop(some)), sharded),
                 [f'index.json: has no entry for tensor "{some}"']),
    "wrong-entry": (spoiled("wrong-entry", edit_json("model.safetensors.index.json", lambda d: d["weight_map"].update({some: third})), sharded),
                    [f'index.json: tensor "{some}" is not in {third}']),
    "architecture": (spoiled("architecture", edit_json("config.json", lambda d: d.update(model_type="llama"))), ["config.json: model_type: 'llama'"]),
    "quantised": (spoiled("quantised", edit_json("config.json", lambda d: d.update(quantization_config={"quant_method": "gptq"}))), ["quantization_config"]),
    "shape": (spoiled("shape", edit_header(reshape)), ["lm_head.weight is [32, 512], not [512, 32]"]),
    "names": (spoiled("names", edit_header(rename)), ["model.norm.weight is missing", "\"model.norm.waight\" is none of the model's tensors"]),
    "both": (spoiled("both", edit_header(lambda h: (rename(h), reshape(h)))),
             ["model.norm.weight is missing", "lm_head.weight is [32, 512], not [512, 32]", "\"model.norm.waight\" is none of the model's tensors"]),
    "nan": (spoiled("nan", edit_tensor("model.norm.weight", "f", [float("nan")])), ["model.norm.weight holds NaN or infinity"]),
    "infinity": (spoiled("infinity", edit_tensor("lm_head.weight", "f", [1.0, float("-inf")])), ["lm_head.weight holds NaN or infinity"]),
}
slowest = 0
for name, (path, wanted) in cases.items():
    for arguments in (["generate", "--model", path, "--prompt", "a"], ["convert", "--to", "hf", path, folder / "never"],
                      ["pretrain", "--config", work.config(f"never-{name}"), "--model", path, "train.steps=1"]):
        begin = time.perf_counter()
        done = cohort(*arguments, code=2)
        slowest = max(slowest, time.perf_counter() - begin)
        lines = done.stderr.strip().splitlines()
        fits = len(lines) == len(wanted) and all(any(w in line for line in lines) for w in wanted) and all(l.startswith("cohort: ") for l in lines)
        if not fits:
            print(done.stderr)
        check(fits, f"{name}: cohort {arguments[0]}: {lines[0]}")
    check(not (folder / "never").exists() and not list(folder.glob(".never*")), f"{name}: nothing is left behind")
print(f"the slowest took {slowest:.2f} s")
done = cohort("generate", "--model", cases["both"][0], "--prompt", "a", code=2, ranks=2)
check(len(done.stderr.strip().splitlines()) >= 3 and "waight" in done.stderr, "two ranks name each fault once")
