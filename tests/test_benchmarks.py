"""The benchmarks run, and their tables say what their JSON says. Speeds are looked at by people, never asserted."""
import json, subprocess, sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1]/"benchmarks"

def run(script, *words): return subprocess.run([sys.executable, BENCHMARKS/script, *map(str, words)], capture_output=True, text=True)

def test_bench_measures_both_ways_and_writes_its_table(tmp_path):
    done = run("bench.py", "--rows", "pipeline,second,commands", "--size", 32, "--repeats", 1, "--out", tmp_path/"b.json")
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads((tmp_path/"b.json").read_text())
    rows = {r["row"]: r for r in result["rows"]}
    pipeline = rows["augmented input"]
    assert pipeline["ratio"] == pipeline["project_median"] / pipeline["reference_median"] and len(pipeline["project_all"]) == 1
    assert {"decoded films, second run", "import pneumo_nb", "pneumo --help"} < {*rows} and result["ceilings"]["product"] > 0
    page = tmp_path/"page.md"
    page.write_text("<!-- benchmark: written by `make bench WRITE=FILE` -->\nold\n<!-- end of benchmark -->\n")
    assert run("bench.py", "--out", tmp_path/"b.json", "--write", page).returncode == 0
    assert "| augmented input, films/s |" in page.read_text() and "old" not in page.read_text()

def test_growth_measures_each_size(tmp_path):
    done = run("growth.py", "--films", "128,256", "--size", 32, "--out", tmp_path/"g.json")
    assert done.returncode == 0 and "| input pipeline |" in done.stdout and "128 films | 256 films | a million" in done.stdout, done.stderr[-2000:]
    assert {*json.loads((tmp_path/"g.json").read_text())["results"]} == {"128", "256"}

def test_an_unknown_row_is_named():
    done = run("bench.py", "--rows", "speed")
    assert done.returncode == 2 and "expected rows among pipeline" in done.stderr and "found speed" in done.stderr
