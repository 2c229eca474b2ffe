#!/usr/bin/env python3
"""Rules of drouting: seconds of the processor to load them, bytes of the tree, nanoseconds per look-up.

  benches/routing.py             a million rules, each with two gateways and attributes of its own
  benches/routing.py 10000000    as many

Reading them from a database comes on top. Compiles the tree by itself with rustc -O. Exit code 1 if the bounds for a
million are passed: 10 s, 100 MB, 2 µs.
"""
import pathlib, subprocess, sys
from record import ROOT, record


def main():
    program = ROOT / "target/rustc-O/bench-routing"
    program.parent.mkdir(parents=True, exist_ok=True)
    source = pathlib.Path(__file__).with_name("routing.rs")
    subprocess.run(["rustc", "-O", "--edition=2024", "-o", program, source], check=True)
    said = subprocess.run([program, *sys.argv[1:2]], check=True, capture_output=True, text=True).stdout.split()
    rules, size, peak, each, found = (int(word) for word in said[:1] + said[2:])
    record("routing", program, rules=rules, load_s=float(said[1]), bytes=size, peak_mb=peak // 1024, lookup_ns=each,
           found=found)
    ok = float(said[1]) < 10 and size < 100e6 and each < 2000
    return 0 if ok or rules > 1_000_000 else 1


if __name__ == "__main__":
    sys.exit(main())
