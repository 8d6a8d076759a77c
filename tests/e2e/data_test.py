"""cohort data as a user runs it: data_test.py PATH/TO/cohort"""
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

COHORT = sys.argv.pop(1)


def cohort(*arguments):
    return subprocess.run([COHORT, *map(str, arguments)], capture_output=True, text=True, timeout=60)


class Data(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)
        self.out = self.folder / "out"
        lines = [json.dumps({"text": f"The ship number {i} sails over the <|end|> of the sea."}) for i in range(400)]
        with gzip.open(self.folder / "ships.jsonl.gz", "wt") as file:
            file.write("\n".join(lines + ["{broken", lines[0]]) + "\n")

    def prepare(self, *arguments):
        return cohort("data", "prepare", "--out", self.out, "--validation-fraction", "0.1", *arguments)

    def refused(self, done, message):
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertIn(message, done.stderr)

    def test_text_becomes_token_sets_that_inspect_reads(self):
        done = self.prepare("--train-tokenizer", "300", self.folder / "*.gz")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("ships.jsonl.gz:401: not JSON", done.stderr)
        card = json.loads((self.out / "data_card.json").read_text())
        self.assertEqual(card["total"]["documents"], 400)
        self.assertEqual(card["total"]["dropped"], {"duplicates": 1, "too_short": 0, "broken": 1})
        held_out = (self.out / "validation.txt").read_text()
        self.assertEqual(card["validation"]["bytes"], len(held_out))
        self.assertEqual(card["validation"]["documents"], len(held_out.splitlines()))

        # Again, with the tokenizer it left: the same bytes.
        tokens = (self.out / "train.bin").read_bytes()
        done = self.prepare("--tokenizer", self.out / "tokenizer.json", self.folder / "ships.jsonl.gz")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((self.out / "train.bin").read_bytes(), tokens)

        done = cohort("data", "inspect", self.out, "--documents", "1")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("<|begin|>The ship number", done.stdout)
        self.assertIn(f"documents   {card['train']['documents']}", done.stdout)
        self.assertIn("every token is in it", done.stdout)

        self.out.joinpath("train.bin").write_bytes(tokens[:-1])
        self.refused(cohort("data", "inspect", self.out / "train"), "train.bin: ")
        self.out.joinpath("train.bin").write_bytes(tokens[:-2] + b"\xff\xff")
        self.refused(cohort("data", "inspect", self.out / "train"), "is 65535, but the vocabulary has ids 0 to 299")

    def test_what_cannot_be_done_is_told_in_one_line(self):
        ships = self.folder / "ships.jsonl.gz"
        self.refused(self.prepare(ships), "--train-tokenizer VOCAB")
        self.refused(self.prepare("--tokenizer", self.folder / "none.json", ships), "none.json")
        self.refused(self.prepare("--train-tokenizer", "300", self.folder / "none"), "none: no such file or folder")
        self.refused(self.prepare("--train-tokenizer", "10", ships), "10")
        self.refused(self.prepare("--train-tokenizer", "300", "--on-error", "fail", ships), "ships.jsonl.gz:401: not JSON")
        self.refused(self.prepare("--train-tokenizer", "300", "--split", "words", ships), "--split")
        self.refused(self.prepare("--train-tokenizer", "300", "--field", "body", ships), "text")
        self.refused(self.prepare("--train-tokenizer", "300", "--end-token", "<eot>", ships), "--end-token '<eot>'")
        self.refused(cohort("data", "inspect", self.folder / "none"), "none.idx: cannot be read")
        self.refused(cohort("data", "inspect", self.folder), "no token set")


unittest.main()
