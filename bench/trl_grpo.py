"""The peer of bench/grpo: seconds a step of TRL's GRPOTrainer on the CPU, on random prompts, completions
without an early end, as one JSON line. Needs torch, transformers and trl (scripts/setup --peers).
"""
import argparse
import json
import os
import statistics
import tempfile
import time

os.environ.update(TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("config")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--prompts", type=int, default=4)
parser.add_argument("--group", type=int, default=8)
parser.add_argument("--prompt", type=int, default=32)
parser.add_argument("--new", type=int, default=64)
parser.add_argument("--steps", type=int, default=4)
args = parser.parse_args()

torch.set_num_threads(args.threads)
torch.manual_seed(0)
config = AutoConfig.for_model(**json.load(open(args.config)))
model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")

# One word a token, so that a prompt has as many tokens as words.
words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(config.vocab_size)}, unk_token="w3"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="w0", eos_token="w1", pad_token="w1", unk_token="w3")
prompts = [" ".join(f"w{(37 * i + j) % (config.vocab_size - 96) + 10}" for j in range(args.prompt)) for i in range(64)]
seconds = []


class Clock(TrainerCallback):
    def on_step_begin(self, *_, **__):
        self.start = time.perf_counter()

    def on_step_end(self, *_, **__):
        seconds.append(time.perf_counter() - self.start)


def reward(completions, **_):
    return [float(len(completion) % 7) for completion in completions]


with tempfile.TemporaryDirectory() as folder:
    settings = GRPOConfig(
        output_dir=folder, per_device_train_batch_size=args.prompts * args.group, num_generations=args.group,
        max_completion_length=args.new, max_steps=args.steps + 1, use_cpu=True, report_to=[], logging_steps=1000,
        save_strategy="no", beta=0.0, learning_rate=1e-6, generation_kwargs={"min_new_tokens": args.new},
        disable_tqdm=True, bf16=False, gradient_checkpointing=False)
    GRPOTrainer(model=model, reward_funcs=reward, args=settings, train_dataset=Dataset.from_list([{"prompt": p} for p in prompts]),
                processing_class=tokenizer, callbacks=[Clock()]).train()
median = statistics.median(seconds[1:])  # the first warms up
print(json.dumps({"seconds_per_step": median, "generated_tokens_per_second": args.prompts * args.group * args.new / median}))
