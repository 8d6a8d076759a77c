#!/usr/bin/env python3
"""The dependency table of docs/architecture.md, checked over every #include."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MAY_INCLUDE = {
    "kernels": {"kernels"},
    "core": {"core", "kernels"},
    "distributed": {"distributed", "core"},
    "moe": {"moe", "kernels", "core", "distributed"},
    "rl": {"rl", "moe", "kernels", "core", "distributed"},
    "cli": {"cli", "rl", "moe", "kernels", "core", "distributed"},
}
LIBRARIES_OUTSIDE = {"kernels": r"<(ATen|torch|c10|mpi|yaml-cpp)"}

faults = []
files = 0
for folder, allowed in MAY_INCLUDE.items():
    for path in sorted((ROOT / folder).rglob("*")):
        if path.suffix not in {".h", ".cpp", ".cu", ".cuh"}:
            continue
        files += 1
        for number, line in enumerate(path.read_text().splitlines(), 1):
            found = re.match(r'\s*#\s*include\s+"([a-z]+)/', line)
            where = f"{path.relative_to(ROOT)}:{number}"
            if found and found.group(1) not in allowed:
                faults.append(f"{where}: {folder} may not include {found.group(1)}")
            banned = LIBRARIES_OUTSIDE.get(folder)
            if banned and re.match(rf"\s*#\s*include\s+{banned}", line):
                faults.append(f"{where}: {folder} uses no such library: {line.strip()}")
            if path.suffix == ".h" and "torch/torch.h" in line:
                faults.append(f"{where}: torch/torch.h costs 20 s a file; include ATen/ATen.h")
if files < 20:
    faults.append(f"only {files} source files found below {ROOT}")
print("\n".join(faults) or f"{files} files keep to the table")
sys.exit(bool(faults))
