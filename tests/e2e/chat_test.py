#!/usr/bin/env python3
"""A model's own chat template: cohort generate --chat speaks by it, and cohort sft learns conversations by it."""
import json
import shutil

from answers import Answers
from harness import check, cohort

work = Answers()
folder = work.folder
# The base has seen sums as "3 + 4 =": a template that writes a user's message as it is makes a chat of it.
PLAIN = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
TALK = [{"role": "user", "content": "2 + 3 ="}, {"role": "assistant", "content": " 5"},
        {"role": "user", "content": "4 + 4 ="}, {"role": "assistant", "content": " 8"}]


def model_with(name, template, in_config=False):
    """The base with a chat template of its own."""
    target = folder / name
    cohort("convert", "--to", "hf", work.run("base"), target)
    config = json.loads((target / "tokenizer_config.json").read_text()) | {"bos_token": "<|begin|>", "eos_token": {"content": "<|end|>"}}
    if in_config:
        config["chat_template"] = template
    else:
        (target / "chat_template.jinja").write_text(template)
    (target / "tokenizer_config.json").write_text(json.dumps(config))
    return target


def generate(model, *more, **options):
    return cohort("generate", "--model", model, "--temperature", 0, "--max-new-tokens", 12, "--json", *more, **options)


# cohort generate --chat.
chat = model_with("chat", "{{ bos_token }}" + PLAIN)
plain = json.loads(generate(chat, "--prompt", "2 + 3 =").stdout)["completion"]
check(json.loads(generate(chat, "--chat", "--prompt", "2 + 3 =").stdout)["completion"] == plain,
      f"a prompt in the template's words is that prompt: {plain!r}")
said = json.loads(generate(model_with("configured", "{{ bos_token }}" + PLAIN, in_config=True), "--chat", "--prompt", "2 + 3 =").stdout)
check(said["completion"] == plain, "a template in tokenizer_config.json does the same")
(folder / "talk.jsonl").write_text(json.dumps({"messages": TALK[:1]}) + "\n" + json.dumps({"prompt": "2 + 3 ="}) + "\n")
lines = [json.loads(line) for line in generate(chat, "--chat", "--input", folder / "talk.jsonl").stdout.splitlines()]
check([line["completion"] for line in lines] == [plain, plain], "messages and prompts of a file too")
system = model_with("system", "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% endif %}{% endfor %}")
said = json.loads(generate(system, "--chat", "--system", "2 + 3 =", "--prompt", "never seen").stdout)
check(said["completion"] == plain, "--system is the first message")
for what, arguments, word in [
    ("a model without a template", [work.run("base"), "--chat", "--prompt", "a"], "chat_template"),
    ("a template that is broken", [model_with("broken", "{% if %}"), "--chat", "--prompt", "a"], "chat_template.jinja:1"),
    ("a template that refuses", [model_with("refuses", "{{ raise_exception('no talk') }}"), "--chat", "--prompt", "a"], "no talk"),
    ("a system message without a chat", [chat, "--system", "a", "--prompt", "a"], "--chat"),
]:
    done = generate(*arguments, code=2)
    check(word in done.stderr and len(done.stderr.strip().splitlines()) == 1, f"{what}: {done.stderr.strip()[:160]}")

# cohort sft: the same conversation, and the same example in plain words, are the same tokens and the same loss.
talk = work.write("conversation.jsonl", [{"messages": TALK[:2]}] * 8)
pairs = work.write("pairs.jsonl", [{"prompt": "2 + 3 =", "completion": " 5"}] * 8)
settings = ["train.epochs=null", "train.steps=2", "data.validation=null", "model.num_nextn_predict_layers=0"]


def learn(name, model, file, *more, **options):
    return work.sft(name, f"run.model={model}", f"data.train=[{file}]", *settings, *more, **options)


learn("by-pairs", chat, pairs)
learn("by-talk", chat, talk)
check(work.figures("by-talk") == work.figures("by-pairs"), "rendered by the model's template a conversation is that prompt and that completion")
check((work.checkpoints("by-talk")[-1] / "chat_template.jinja").read_text() == (chat / "chat_template.jinja").read_text(),
      "the template travels with the weights")
learn("by-talk", work.run("by-talk"), talk, "train.steps=3", "--resume")
check(len(work.metrics("by-talk")) == 3, "a resumed run has it still")
done = learn("chatml", work.run("base"), talk, code=2)
check("longer than data.seq_len" in done.stderr, "without a template conversations become ChatML, whose marks are long in this tokenizer")

# {% generation %} tells what is trained, where a template has it.
marked = model_with("marked", "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% else %}"
                    "{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}{% endif %}{% endfor %}")
learn("by-marks", marked, talk)
check(work.figures("by-marks") == work.figures("by-pairs"), "{% generation %}: the same tokens, the same loss")
long = work.write("long.jsonl", [{"messages": TALK}] * 4)
learn("long", chat, long)
learn("long-marked", marked, long)
check(work.figures("long") == work.figures("long-marked"), "and in a conversation of two turns")
last = work.write("last.jsonl", [{"prompt": TALK[:3], "completion": TALK[3:]}] * 4)
for name, model in (("last", chat), ("last-marked", marked)):
    learn(name, model, last)
    check(work.metrics(name)[0]["trained_tokens"] < work.metrics("long")[0]["trained_tokens"], f"{name}: of a prompt's turns none is trained")

# What cannot be told.
forgets = "{% for m in messages %}{% if loop.last or m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
for what, name, template, file, word in [
    ("a template that forgets earlier turns", "forgets", forgets, long, "long.jsonl:1: the chat template changes what came before message 3"),
    ("a template that is broken", "broken2", "{% if %}", talk, "conversation.jsonl:1: "),
    ("a template that keeps the answer to itself", "mute", "{% for m in messages %}{% if m.role == 'user' %}x{% endif %}{% endfor %}", talk,
     "leaves out part of what message 1 says"),
]:
    done = learn(name, model_with(f"m-{name}", template), file, code=2)
    words = [line for line in done.stderr.strip().splitlines() if not line.startswith(("info", "warning"))]
    check(len(words) == 1 and word in words[0], f"{what}: {words[:2]}")
learn("unused", model_with("unused-template", "{% if %}"), pairs)
check(len(work.metrics("unused")) == 2, "a template that nothing needs stands in no one's way")
