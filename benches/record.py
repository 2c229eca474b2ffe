"""What a benchmark found, as one line of JSON in benches/results.jsonl: when, of which commit and build, on how many
cores of what kind, how busy the machine was, and the numbers. Two lines are comparable where cores, cpu and build are
the same and `load` is small."""
import datetime, json, os, pathlib, re, subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benches/results.jsonl"
# What `benches/compare` found, one line for each run.
HISTORY = ROOT / "benches/history.jsonl"


def commit():
    run = lambda *words: subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True).stdout.strip()
    changed = "+" if run("status", "--porcelain", "--untracked-files=no", "--", "crates", "Cargo.toml") else ""
    return (run("rev-parse", "--short", "HEAD") or "unknown") + changed


def processor():
    text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    name = re.search(r"model name\s*:\s*(.*)", text)
    return name[1] if name else os.uname().machine


def record(bench, program, to=RESULTS, **numbers):
    """`program`: the build that was measured; its folder below target/ is the profile. Prints the line too."""
    line = {
        "bench": bench,
        "at": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%MZ"),
        "commit": commit(),
        "build": pathlib.Path(program).resolve().parent.name,
        "cores": os.cpu_count(),
        "cpu": processor(),
        "load": round(os.getloadavg()[0], 2),
        **{name: round(value, 3) if isinstance(value, float) else value for name, value in numbers.items()},
    }
    text = json.dumps(line, ensure_ascii=False)
    with to.open("a", encoding="utf-8") as out:
        out.write(text + "\n")
    print(text)
