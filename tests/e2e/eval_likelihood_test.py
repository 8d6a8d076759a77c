#!/usr/bin/env python3
"""cohort eval by log-likelihood: perplexity and multiple choice as a user runs them, and worked examples before questions."""
import json
import pathlib
import tempfile

from harness import check, cohort

cases = sorted((pathlib.Path(__file__).parent.parent / "fixtures" / "lm_eval").iterdir())
holder = tempfile.TemporaryDirectory(prefix="cohort-e2e-")
folder = pathlib.Path(holder.name)
close = lambda a, b, tolerance=2e-5: abs(a - b) <= tolerance * abs(b)

for case in cases:
    expected = json.loads((case / "expected.json").read_text())
    perplexity = ["eval", "--model", case, "--task", "perplexity", "--data", case / "documents.jsonl", "--json"]
    result = json.loads(cohort(*perplexity).stdout)
    for key in ["word_perplexity", "byte_perplexity", "bits_per_byte"]:
        check(close(result[key], expected["perplexity"][key]), f"{case.name}: {key} is lm-evaluation-harness's")
    check(result["task"] == "perplexity" and result["documents"] == 6 and result["window"] == result["stride"] == 48,
          "documents and window are told")
    choice = ["eval", "--model", case, "--task", "multiple_choice", "--data", case / "questions.jsonl", "--json"]
    choice += ["--add-bos"] * expected["add_bos"]
    saved = folder / f"{case.name}.jsonl"
    chosen = json.loads(cohort(*choice, "--save", saved).stdout)
    for key in ["acc", "acc_norm", "acc_bytes", "exact_match"]:
        check(abs(chosen[key] - expected["multiple_choice"][key]) < 1e-12, f"{case.name}: {key} is lm-evaluation-harness's")
    check(len(saved.read_text().splitlines()) == chosen["questions"] == 24, "--save writes every question")
    for ranks, ep in [(2, 1)] + [(2, 2)] * case.name.startswith("moe"):
        check(json.loads(cohort(*perplexity, "--ep", ep, ranks=ranks).stdout) == result, f"the same perplexity on {ranks} ranks, ep={ep}")
        check(json.loads(cohort(*choice, "--ep", ep, ranks=ranks).stdout) == chosen, f"the same choices on {ranks} ranks, ep={ep}")
    check(json.loads(cohort(*perplexity, "--window", 16, "--stride", 4).stdout)["tokens"] == result["tokens"],
          "a stride predicts the same tokens")

    bits = {}
    for form, group in [("int8", 128), ("int4", 128), ("int4", 8)]:
        few = json.loads(cohort(*perplexity, "--quantize", form, "--quantize-group", group).stdout)
        bits[form, group] = few["bits_per_byte"]
        check(few["unquantized"]["bits_per_byte"] == result["bits_per_byte"], f"{case.name}: the unquantised figures stand beside {form}'s")
        check(abs(few["bits_per_byte"] - result["bits_per_byte"] - few["bits_per_byte_change"]) < 1e-12 and few["bits_per_byte_change"] != 0,
              f"and what {form} in groups of {group} changes: {few['bits_per_byte_change']:+.4f} bits a byte")
        check(few["quantize"] == form and few["quantize_group"] == group and few["weight_bytes"] < few["weight_bytes_unquantized"],
              f"{few['weight_bytes']} bytes of {few['weight_bytes_unquantized']}")
    check(abs(bits["int8", 128] - result["bits_per_byte"]) < 0.02, f"{case.name}: int8 changes little")
    check(json.loads(cohort(*perplexity, "--quantize", "int4", ranks=2).stdout)["bits_per_byte"] == bits["int4", 128], "the same on 2 ranks")
    check(json.loads(cohort(*choice, "--quantize", "int8").stdout)["quantize"] == "int8", "questions to a quantised model")
    told = cohort("generate", "--model", case, "--prompt", "the cat", "--max-new-tokens", 8, "--temperature", 0, "--quantize", "int4")
    check("int4, groups of 128: weights of" in told.stderr, f"{case.name}: generate tells the bytes: {told.stderr.strip().splitlines()[-1]}")

case = cases[0]
text = folder / "text.txt"
text.write_text("the cat runs.\n\nthe dog\nsleeps.\n")
plain = ["eval", "--model", case, "--task", "perplexity", "--data", text]
counts = {split: json.loads(cohort(*plain, "--split", split, "--json").stdout)["documents"] for split in ["file", "blank_lines", "lines"]}
check(counts == {"file": 1, "blank_lines": 2, "lines": 3}, "plain text is one document, or one a paragraph or a line")
check("word_perplexity" in cohort(*plain).stdout, "without --json it is told in words")

few = ["eval", "--model", case, "--task", "multiple_choice", "--data", case / "questions.jsonl", "--json", "--few-shot-file", case / "questions.jsonl"]
check(json.loads(cohort(*few, "--few-shot", 2).stdout)["few_shot"] == 2, "worked examples before multiple choice")

train, test = folder / "train.jsonl", folder / "test.jsonl"
train.write_text("".join(json.dumps({"question": f"{i}+1", "answer": f"so #### {i + 1}"}) + "\n" for i in range(3)))
test.write_text(json.dumps({"question": "7+1", "answer": "#### 8"}) + "\n" + json.dumps({"question": "8+1", "answer": "#### 9"}) + "\n")
shots = folder / "shots.jsonl"
gsm = ["eval", "--model", case, "--task", f"{{name: jsonl, test: {test}, prompt: '{{question}}='}}", "--problems", 2, "--samples", 1,
       "--max-new-tokens", 4, "--temperature", 0, "--json", "--save", shots]
cohort(*gsm, "--few-shot", 2, "--few-shot-file", train, "--stop", "\n\n")
prompts = [json.loads(line)["prompt"] for line in shots.read_text().splitlines()]
check(prompts[0] == "0+1=so\n#### 1\n\n1+1=so\n#### 2\n\n7+1=", "GSM8K lines become worked examples before the question")
cohort(*gsm, "rl.task.few_shot=1", f"rl.task.few_shot_file={train}")
check(json.loads(shots.read_text().splitlines()[1])["prompt"] == "0+1=so\n#### 1\n\n8+1=", "and by keys of the config")

broken, empty = folder / "broken.jsonl", folder / "empty.jsonl"
broken.write_text('{"text": "a"}\n{"txt": "b"}\n')
empty.write_text("")
bare = folder / "one.jsonl"
bare.write_text('{"query": "a", "choices": ["b"], "gold": 2}\n')
choose = ["eval", "--model", case, "--task", "multiple_choice"]
perplexity = ["eval", "--model", case, "--task", "perplexity"]
CASES = [
    ("no data", perplexity, "--data"),
    ("data that are not there", [*perplexity, "--data", folder / "no.txt"], "no.txt"),
    ("a line without the field", [*perplexity, "--data", broken], "broken.jsonl:2"),
    ("no text", [*perplexity, "--data", empty], "empty.jsonl"),
    ("a window beyond the model", [*plain, "--window", 49], "48 positions"),
    ("a stride beyond the window", [*plain, "--window", 8, "--stride", 9], "stride of 9"),
    ("worked examples for perplexity", [*plain, "--few-shot", 1], "--few-shot"),
    ("a wrong gold", [*choose, "--data", bare], "one.jsonl:1"),
    ("a stride for questions", [*choose, "--data", bare, "--stride", 1], "--stride"),
    ("worked examples from nowhere", [*choose, "--data", case / "questions.jsonl", "--few-shot", 1], "--few-shot-file"),
    ("more worked examples than there are", [*few, "--few-shot", 25], "holds 24 examples"),
    ("data for a generating task", [*gsm, "--data", text], "--data"),
    ("an unknown form of weights", [*plain, "--quantize", "int2"], "int2"),
    ("groups of nothing", [*plain, "--quantize", "int4", "--quantize-group", 0], "--quantize-group"),
    ("too many worked examples", [*gsm, "--few-shot", 9, "--few-shot-file", train], "asks for 9 examples"),
]
for what, arguments, word in CASES:
    done = cohort(*arguments, code=2)
    said = [line for line in done.stderr.strip().splitlines() if not line.startswith(("info", "warning"))]
    if len(said) != 1 or word not in said[0]:
        print(done.stderr)
        check(False, f"{what}: one line that says '{word}'")
    print(f"ok: {what}: {said[0][:150]}")
