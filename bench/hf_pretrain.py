"""The peer of bench/pretrain: Hugging Face's DeepseekV3ForCausalLM in PyTorch, the same step on random tokens.

Prints one JSON line. Needs `scripts/setup --peers`.
"""
import argparse
import json
import statistics
import time

import torch
from transformers import AutoConfig, AutoModelForCausalLM

parser = argparse.ArgumentParser()
parser.add_argument("config")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--batch", type=int, default=8)
parser.add_argument("--seq", type=int, default=256)
parser.add_argument("--steps", type=int, default=10)
parser.add_argument("--warmup", type=int, default=3)
parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
parser.add_argument("--compile", action="store_true")
args = parser.parse_args()

torch.set_num_threads(args.threads)
torch.manual_seed(0)
with open(args.config) as file:
    config = AutoConfig.for_model(**json.load(file))
model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
model = model.to(torch.bfloat16 if args.dtype == "bf16" else torch.float32).train()
forward = torch.compile(model) if args.compile else model
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
seconds = []
for step in range(args.warmup + args.steps):
    ids = torch.randint(2, config.vocab_size, (args.batch, args.seq))
    start = time.perf_counter()
    loss = forward(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    value = loss.item()
    if step >= args.warmup:
        seconds.append(time.perf_counter() - start)
median = statistics.median(seconds)
print(json.dumps({"seconds_per_step_median": median, "tokens_per_second": args.batch * args.seq / median,
                  "loss": value, "threads": args.threads, "dtype": args.dtype, "compile": args.compile}))
