#!/usr/bin/env python3
"""Damaged checkpoints and a full disk: the fault is named, the next older good checkpoint is used, and
training goes on where it can."""
import resource
import shutil
import signal

from harness import Workspace, check, cohort

work = Workspace()
work.pretrain("good", ranks=2, ep=2)
names = [p.name for p in work.checkpoints("good")]
check(names == ["step-00000020", "step-00000030", "step-00000040"], f"the newest three are kept: {names}")
check("good" not in cohort("inspect", work.checkpoints("good")[-1], "--verify").stderr, "inspect --verify finds nothing")


def damaged(name, damage):
    """Copies the run, damages a file of its newest checkpoint, resumes; returns the log."""
    shutil.copytree(work.run("good"), work.run(name))
    newest = work.checkpoints(name)[-1]
    victim = damage(newest)
    verdict = cohort("inspect", newest, "--verify", code=2)
    check(victim.name in verdict.stderr, f"{name}: inspect --verify names {victim.name}")
    done = work.pretrain(name, "train.steps=42", "--resume", ranks=2, ep=2)
    check(victim.name in done.stderr, f"{name}: the resumed run names {victim.name}")
    check("step-00000030" in done.stderr, f"{name}: and goes on from the next older one")
    check([s["step"] for s in work.metrics(name)] == list(range(1, 43)), f"{name}: every step is logged once")


def flip(pattern, place):
    def damage(folder):
        victim = sorted(folder.glob(pattern))[-1]
        raw = bytearray(victim.read_bytes())
        raw[int(len(raw) * place)] ^= 4
        victim.write_bytes(raw)
        return victim
    return damage


def cut(pattern):
    def damage(folder):
        victim = sorted(folder.glob(pattern))[0]
        victim.write_bytes(victim.read_bytes()[:-100])
        return victim
    return damage


def lose(pattern):
    def damage(folder):
        victim = sorted(folder.glob(pattern))[0]
        victim.unlink()
        return victim
    return damage


damaged("bit-in-weights", flip("model-*.safetensors", 0.7))
damaged("bit-in-moments", flip("optimizer-*.safetensors", 0.9))
damaged("bit-in-manifest", flip("manifest.json", 0.5))
damaged("cut", cut("model-*.safetensors"))
damaged("lost", lose("optimizer-*.safetensors"))

# A full disk, as a limit on the size of a file: shards do not fit, the log does.
work.pretrain("full", "train.steps=10")
before = work.checkpoints("full")


def small_files():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


done = work.pretrain("full", "train.steps=22", "--resume", code=1, preexec_fn=small_files)
check("File too large" in done.stderr, "a save that does not fit says why")
check(work.checkpoints("full") == before, "the older checkpoint is intact and no half-written one is left")
check(work.metrics("full")[-1]["step"] == 22, "training went on to its last step")
cohort("inspect", before[-1], "--verify")
work.pretrain("full", "train.steps=22", "--resume")
check(work.checkpoints("full")[-1].name == "step-00000022", "with room again, the run resumes and saves")
