"""The peer of bench/generate: tokens/s of Hugging Face `generate` with its cache, sampling at
temperature 1 without an early end, as one JSON line. Needs torch and transformers (scripts/setup --peers).
"""
import argparse
import json
import statistics
import time

import torch
from transformers import AutoConfig, AutoModelForCausalLM

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("config")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--group", type=int, default=1, help="samples of one prompt")
parser.add_argument("--prompt", type=int, default=32)
parser.add_argument("--new", type=int, default=64)
parser.add_argument("--runs", type=int, default=3)
parser.add_argument("--dtype", default="float32")
args = parser.parse_args()

torch.set_num_threads(args.threads)
torch.manual_seed(0)
config = AutoConfig.for_model(**json.load(open(args.config)))
model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
model = model.to(getattr(torch, args.dtype)).eval()
seconds = []
with torch.inference_mode():
    for run in range(args.runs + 1):  # the first warms up
        prompts = torch.randint(2, config.vocab_size, (args.batch // args.group, args.prompt))
        prompts = prompts.repeat_interleave(args.group, 0)
        start = time.perf_counter()
        out = model.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=args.new,
                             min_new_tokens=args.new, do_sample=True, top_k=0, pad_token_id=1)
        if out.shape != (args.batch, args.prompt + args.new):
            raise SystemExit(f"generated {tuple(out.shape)}")
        if run:
            seconds.append(time.perf_counter() - start)
median = statistics.median(seconds)
print(json.dumps({"tokens_per_second": args.batch * args.new / median, "seconds": median}))
