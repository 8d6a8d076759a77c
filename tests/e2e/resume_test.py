#!/usr/bin/env python3
"""A resumed run equals one that was never stopped: bit for bit on the same mesh, within 1e-5 on another."""
from harness import Workspace, check

LOSSES = ("loss", "lm_loss", "mtp_loss", "balance_loss", "grad_norm", "max_vio", "val_loss", "lr", "tokens")
work = Workspace()


def losses(name):
    return [{key: step.get(key) for key in LOSSES} for step in work.metrics(name)]


work.pretrain("whole", ranks=2, ep=2)
check(len(work.metrics("whole")) == 40, "40 steps are logged")
work.pretrain("halves", "train.steps=20", ranks=2, ep=2)
work.pretrain("halves", "--resume", ranks=2, ep=2)
check(losses("whole") == losses("halves"), "20 + 20 steps log the very numbers of 40")
check(work.weights("whole") == work.weights("halves"), "and end in the very weights and moments")
check(losses("whole")[-1]["loss"] < 0.95 * losses("whole")[0]["loss"], "the loss falls")

# Other meshes: rounding differs, nothing else.
work.pretrain("meshes", "train.steps=15", ranks=4, ep=4)
work.pretrain("meshes", "train.steps=25", "--resume", ranks=2, ep=2)
work.pretrain("meshes", "--resume", ranks=1, ep=1)
apart = max(abs(a["loss"] - b["loss"]) for a, b in zip(losses("whole"), losses("meshes")))
check(apart < 1e-5, f"ep 4 -> 2 -> 1 keeps every loss within 1e-5 (largest difference {apart:.1e})")

done = work.pretrain("whole", ranks=2, ep=2, code=2)
check("--resume" in done.stderr, "a folder that holds a run is refused without --resume")
