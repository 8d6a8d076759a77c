#!/usr/bin/env python3
"""What lm-evaluation-harness says of a tiny model: the expected figures of tests/fixtures/lm_eval.

lm_eval_reference.py OUT writes OUT/<case>/ with a model and tokenizer of a few kilobytes, documents, questions and
expected.json. Needs lm-eval 0.4.13, transformers and torch; nothing is fetched.
"""
import json
import os
import pathlib
import random
import sys

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import lm_eval
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

WORDS = "the a cat dog tree house river stone runs sleeps sees finds old small green cold over under near and but then".split()


def sentence(rng, count):
    return " ".join(rng.choice(WORDS) for _ in range(count)).capitalize() + "."


def make_tokenizer(folder, rng, with_bos):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|begin|>", "<|end|>"]
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    tokenizer.train_from_iterator([sentence(rng, 30) for _ in range(50)], trainer)
    if with_bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|begin|>" if with_bos else None, eos_token="<|end|>")
    fast.save_pretrained(folder)
    return fast


def make_documents(rng):
    return [sentence(rng, 6), sentence(rng, 60), "  Leading and trailing space \n", "Caf\u00e9\u00a0na\u00efve\u3000\u732b \t runs.\r\nNext line",
            sentence(rng, 25) + "\n\n" + sentence(rng, 25), "x"]


def make_questions(rng):
    questions = []
    for i in range(24):
        query = sentence(rng, rng.randint(2, 8))[:-1] + ["", " ", "\n", ":"][i % 4]
        choices = [" ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 4))) for _ in range(rng.randint(2, 5))]
        if i % 5 == 0:
            choices[0] = "\u732b caf\u00e9"
        questions.append({"query": query, "choices": choices, "gold": rng.randrange(len(choices))})
    questions[3]["query"] = sentence(rng, 80)  # longer than the model: its beginning goes
    return questions


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def evaluate(model, tasks, **options):
    return lm_eval.simple_evaluate(model=model, tasks=tasks, task_manager=TaskManager(include_defaults=False), bootstrap_iters=0,
                                   log_samples=True, **options)


def reference(folder, add_bos):
    model = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=4, add_bos_token=add_bos)
    rolling = {"task": "rolling", "dataset_path": "json", "output_type": "loglikelihood_rolling", "test_split": "train",
               "dataset_kwargs": {"data_files": str(folder / "documents.jsonl")}, "doc_to_text": "", "doc_to_target": "text",
               "metric_list": [{"metric": name} for name in ["word_perplexity", "byte_perplexity", "bits_per_byte"]]}
    choice = {"task": "choice", "dataset_path": "json", "output_type": "multiple_choice", "test_split": "train",
              "dataset_kwargs": {"data_files": str(folder / "questions.jsonl")}, "doc_to_text": lambda doc: doc["query"],
              "doc_to_choice": "choices", "doc_to_target": "gold", "target_delimiter": " ",
              "metric_list": [{"metric": name, "aggregation": "mean"} for name in ["acc", "acc_norm", "acc_bytes", "exact_match"]]}
    assert (model.tok_encode("a")[0] == model.prefix_token_id) == add_bos
    # With add_bos_token the rolling likelihood would score the begin token itself.
    plain = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=4, add_bos_token=False)
    documents = evaluate(plain, [rolling])
    questions = evaluate(model, [choice])
    figures = lambda result, task: {key.split(",")[0]: value for key, value in result["results"][task].items()
                                    if key.endswith(",none") and value != "N/A"}
    samples = questions["samples"]["choice"]
    return {"add_bos": add_bos, "perplexity": figures(documents, "rolling"), "multiple_choice": figures(questions, "choice"),
            "document_log_likelihoods": [sample["filtered_resps"][0] for sample in documents["samples"]["rolling"]],
            "log_likelihoods": [[response[0] for response in sample["filtered_resps"]] for sample in samples],
            "likeliest": [[bool(response[1]) for response in sample["filtered_resps"]] for sample in samples]}


def likeliest_pair(model, tokenizer, rng):
    """A query and the choice that greedy decoding writes behind it and a space."""
    while True:
        query = sentence(rng, rng.randint(1, 6))[:-1]
        ids = tokenizer.encode(query)
        with torch.no_grad():
            token = model(torch.tensor([ids])).logits[0, -1].argmax().item()
        text = tokenizer.decode([token])
        if text.startswith(" ") and text.strip() and tokenizer.encode(query + text) == ids + [token]:
            return query, text[1:]


def make_case(folder, seed, moe, with_bos):
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(folder, rng, with_bos)
    shared = dict(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
                  num_key_value_heads=1, max_position_embeddings=48, initializer_range=0.35, tie_word_embeddings=False,
                  bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)
    if moe:
        model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**shared, head_dim=8, num_experts=4, num_experts_per_tok=2,
                                                   moe_intermediate_size=12, norm_topk_prob=True, decoder_sparse_step=1))
    else:
        model = Qwen2ForCausalLM(Qwen2Config(**shared))
    model.float().save_pretrained(folder)
    write_lines(folder / "documents.jsonl", [{"text": text} for text in make_documents(rng)])
    questions = make_questions(rng)
    for question in questions[::4]:  # let greedy decoding find some of the answers
        question["query"], question["choices"][question["gold"]] = likeliest_pair(model, tokenizer, rng)
    write_lines(folder / "questions.jsonl", questions)
    expected = reference(folder, add_bos=with_bos)
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    print(folder.name, expected["perplexity"], expected["multiple_choice"], sum(map(sum, expected["likeliest"])))


if __name__ == "__main__":
    out = pathlib.Path(sys.argv[1]).resolve()
    make_case(out / "dense_no_bos", 1, moe=False, with_bos=False)
    make_case(out / "moe_bos", 2, moe=True, with_bos=True)
