"""What the benches that pair Cohort with another program share: options, one measurement, one comparison."""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none", "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
}


def cpu_name():
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


class Peers:
    def __init__(self, description, **flags):
        """`flags`: further on/off options, name to help."""
        parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--rounds", type=int, default=5)
        parser.add_argument("--threads", type=int, default=os.cpu_count())
        parser.add_argument("--config", default=str(ROOT / "bench/config_small.json"))
        parser.add_argument("--build", default=str(ROOT / "build"))
        parser.add_argument("--python", default=str(ROOT / ".venv/bin/python"), help="has the peer's packages")
        for name, meaning in flags.items():
            parser.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=meaning)
        self.args = parser.parse_args()

    def measure(self, command, threads=None, figure="tokens_per_second", **options):
        """`figure` of the JSON line that `command --threads N --option value ...` prints last."""
        threads = threads or self.args.threads
        command = command + ["--threads", str(threads)]
        for key, value in options.items():
            command += [f"--{key}"] if value is True else [f"--{key}", str(value)]
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads), HF_HUB_OFFLINE="1", **MPI)
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        return json.loads(done.stdout.strip().splitlines()[-1])[figure]

    def compare(self, name, ours, peer, unit="tokens/s", less_is_better=False):
        """Alternates the two; the ratio is above 1 where ours is better."""
        mine, theirs = [], []
        for _ in range(self.args.rounds):
            mine.append(ours())
            theirs.append(peer())
        ratio = statistics.median(b / a if less_is_better else a / b for a, b in zip(mine, theirs))
        print(json.dumps({"name": name, "ours": round(statistics.median(mine), 3),
                          "peer": round(statistics.median(theirs), 3), "ratio": round(ratio, 3), "unit": unit,
                          "device": f"{cpu_name()}, {self.args.threads} threads"}), flush=True)
