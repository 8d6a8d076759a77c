#!/usr/bin/env python3
"""nvcc keeps the products of wgmma asynchronous: where registers do not suffice or sums are moved about, ptxas puts
a wait behind each, says so in a remark that no flag turns into an error, and the kernel loses most of its speed.

    tests/hopper_build_test.py NVCC
"""
import pathlib
import subprocess
import sys
import tempfile

root = pathlib.Path(__file__).resolve().parent.parent
sources = sorted(root.glob("kernels/cuda/*_hopper.cu"))
assert sources, "there are no kernels of Hopper"
for source in sources:
    with tempfile.TemporaryDirectory() as folder:
        built = subprocess.run(
            [sys.argv[1], "-std=c++17", "-O3", f"-I{root}", "-arch=sm_90a", "-Werror=all-warnings", "-Xptxas=-v", "-cubin",
             str(source), "-o", f"{folder}/kernel.cubin"], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    remarks = [line for line in built.stderr.splitlines() if "serialized" in line]
    assert not remarks, "\n".join(remarks)
    kernels = built.stderr.count("Compiling entry function")
    assert kernels, f"{source.name}: no kernel was compiled"
    print(f"{source.name}: {kernels} kernels, no wgmma serialized")
