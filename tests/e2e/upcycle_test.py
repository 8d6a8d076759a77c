#!/usr/bin/env python3
"""cohort upcycle as a user runs it: a dense run becomes a mixture of experts that predicts the same and trains on."""
import json

from harness import Workspace, check, cohort

work = Workspace()
folder = work.folder
dense_model = ["model.n_routed_experts=0", "model.first_k_dense_replace=3"]
work.pretrain("dense", "train.steps=10", *dense_model)
dense = work.run("dense")
text = folder / "held-out.jsonl"
text.write_text("".join((folder / "text.jsonl").open().readlines()[:8]))


def bits(model, ranks=1, *more):
    return json.loads(cohort("eval", "--model", model, "--task", "perplexity", "--data", text, "--json", *more, ranks=ranks).stdout)["bits_per_byte"]


before = bits(dense)
for name, arguments in [("copies", ["--experts", 4, "--top-k", 2]),
                        ("slices", ["--experts", 8, "--top-k", 4, "--granularity", 2, "--dense-layers", 1]),
                        ("shared", ["--experts", 12, "--top-k", 3, "--granularity", 4, "--shared", 1, "--shard-mb", 0.05])]:
    sparse = folder / name
    said = cohort("upcycle", dense, sparse, *arguments).stdout
    check("parameters" in said and f"{arguments[1]} experts" in said, f"{name}: what was made is told")
    after = bits(sparse)
    check(abs(after - before) < 1e-6 * before, f"{name}: the mixture predicts as the dense model did ({before:.6f}, {after:.6f})")
    check((sparse / "tokenizer.json").is_file() and json.loads((sparse / "config.json").read_text())["dtype"] == "float32",
          f"{name}: tokenizer and dtype are there")
check((folder / "shared" / "model.safetensors.index.json").is_file(), "a small --shard-mb makes several files")
check(abs(bits(folder / "copies", 2, "--ep", 2) - before) < 1e-6 * before, "and on 2 ranks with ep=2")
work.pretrain("further", "train.steps=4", f"run.model={folder / 'slices'}", "model.n_routed_experts=8", "model.num_experts_per_tok=4",
              "model.n_group=1", "model.topk_group=1", "model.moe_intermediate_size=32", "model.n_shared_experts=0",
              "model.routed_scaling_factor=2", "optimizer.lr=1e-4")
check(work.metrics("further")[0]["lm_loss"] < 1.1 * work.metrics("dense")[-1]["lm_loss"], "the mixture trains on from there")

CASES = [
    ("a folder that exists", [dense, folder / "copies"], "exists already"),
    ("a model that has experts", [folder / "copies", folder / "x"], "routed experts already"),
    ("slices that do not divide", [dense, folder / "x", "--granularity", 3], "--granularity"),
    ("a model that is not there", [folder / "no", folder / "x"], "no such folder"),
    ("too many experts a token", [dense, folder / "x", "--top-k", 9], "--top-k"),
]
for what, arguments, word in CASES:
    done = cohort("upcycle", *arguments, code=2)
    said = [line for line in done.stderr.strip().splitlines() if not line.startswith(("info", "warning"))]
    check(len(said) == 1 and word in said[0], f"{what}: {done.stderr.strip()[:150]}")
    check(not (folder / "x").exists(), "and nothing is left")
