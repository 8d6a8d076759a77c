#!/usr/bin/env python3
"""cohort grpo draws the same completions and learns the same from them on any mesh, and trains what it sampled."""
import math

from harness import check
from sums import RICH, Sums

STEPS = 5
EXACT = ("reward_mean", "reward/math_answer", "reward/length", "reward/scribe", "reward_failures", "pass_rate",
         "completion_tokens_mean", "truncated_fraction", "degenerate_groups", "tokens", "lr", "clip_fraction")
NEAR = ("loss", "grad_norm", "kl", "entropy")  # the order of a sum differs between meshes
work = Sums()


def same_on_any_mesh(kind, overrides, shaping, tolerance):
    one = f"{kind}-1"
    work.grpo(one, *overrides, shaping=shaping)
    steps = work.metrics(one)
    check([step["step"] for step in steps] == list(range(1, STEPS + 1)), f"{kind}: {STEPS} steps are logged")
    check(sum(step["pass_rate"] for step in steps) > 0 and sum(step["truncated_fraction"] for step in steps) > 0,
          f"{kind}: some completions are right and some are cut")
    for ep in (1, 2):
        two, mesh = f"{kind}-2-{ep}", f"2 ranks, ep {ep}"
        work.grpo(two, *overrides, ranks=2, ep=ep, shaping=shaping)
        check(work.completions(two) == work.completions(one), f"{kind}, {mesh}: every completion is that of 1 rank")
        check(work.samples(two) == work.samples(one), f"{kind}, {mesh}: and samples.jsonl")
        largest = 0
        for step, same in zip(steps, work.metrics(two)):
            unequal = {key: (step[key], same[key]) for key in EXACT if step[key] != same[key]}
            check(not unequal, f"{kind}, {mesh}: and rewards and counts of step {step['step']} {unequal or ''}")
            largest = max(largest, *(abs(step[key] - same[key]) / max(1, abs(step[key])) for key in NEAR))
        check(largest < tolerance, f"{kind}, {mesh}: and loss, gradient norm, KL and entropy within {tolerance} (largest {largest:.1e})")
    for name in (one, f"{kind}-2-1", f"{kind}-2-2"):
        drift = max(step["logp_drift_max"] for step in work.metrics(name))
        check(drift < 1e-4, f"{name}: training finds the log-probabilities of sampling (largest difference {drift:.1e})")
        check(all(step["routing_mismatch"] == 0 and step["routing_mismatch_pairs"] == 0 for step in work.metrics(name)),
              f"{name}: and its routing")


same_on_any_mesh("plain", [], shaping=0.125, tolerance=1e-5)
check(all(step["kl"] == 0 for step in work.metrics("plain-1")), "without beta there is no KL")
check(len(work.completions("plain-1")) == STEPS * 32, "without refilling 32 completions are drawn a step")
same_on_any_mesh("rich", RICH, shaping=0, tolerance=1e-4)  # 20 updates
rich = work.metrics("rich-1")
check(max(step["kl"] for step in rich) > 0 and max(step["clip_fraction"] for step in rich) > 0,
      "with beta and two passes there are KL and clipped ratios")
check(max(step["degenerate_groups"] for step in rich) > 0 and len(work.completions("rich-1")) > STEPS * 32,
      "groups without variance were drawn anew")

work.grpo("bf16", "train.precision=bf16", "train.steps=2")
for step in work.metrics("bf16"):
    check(0 <= step["logp_drift_max"] < 1 and 0 <= step["routing_mismatch"] < 0.5 and math.isfinite(step["loss"]),
          f"bf16 runs; its drift is {step['logp_drift_max']:.1e}, its routing mismatch {step['routing_mismatch']:.1e}")

work.grpo("evaluated", "rl.eval_every=3", "rl.eval_problems=5", "rl.eval_samples=2")
lines = work.metrics("evaluated")
check([line["step"] for line in lines if "eval_pass_at_1" in line] == [0, 3, 5], "held-out problems at steps 0, 3 and 5")
check([{key: step[key] for key in EXACT + NEAR} for step in lines[1:]]
      == [{key: step[key] for key in EXACT + NEAR} for step in work.metrics("plain-1")], "and the run is the very same")
