"""The benchmarks run, and tables say what their JSON says. Speeds are looked at by people, never asserted."""
import json, subprocess, sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1]/"benchmarks"
TABLES = {"bench.py": ("benchmark", "make bench"), "growth.py": ("growth", "make growth")}

def run(script, *words):
    command = [sys.executable, BENCHMARKS/script, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)

def written(folder, script, out) -> str:
    "A page into which a script wrote its table."
    page, (name, command) = folder/"page.md", TABLES[script]
    page.write_text(f"<!-- {name}: written by `{command} WRITE=FILE` -->\nold\n<!-- end of {name} -->\n")
    done = run(script, "--out", out, "--write", page)
    assert done.returncode == 0, done.stderr[-2000:]
    return page.read_text()

def test_bench_measures_both_ways_and_writes_its_table(tmp_path):
    out = tmp_path/"b.json"
    done = run("bench.py", "--rows", "pipeline,second,commands", "--size", 32, "--repeats", 1, "--out", out)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(out.read_text())
    rows = {r["row"]: r for r in result["rows"]}
    pipeline = rows["augmented input"]
    assert pipeline["ratio"] == pipeline["project_median"] / pipeline["reference_median"]
    assert len(pipeline["project_all"]) == 1 and result["ceilings"]["product"] > 0
    assert {"decoded films, second run", "import pneumo_nb", "pneumo --help"} < {*rows}
    page = written(tmp_path, "bench.py", out)
    assert "| augmented input, films/s |" in page and "old" not in page

def test_growth_measures_each_size(tmp_path):
    done = run("growth.py", "--films", "128,256", "--size", 32, "--out", tmp_path/"g.json")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "| input pipeline |" in done.stdout and "128 films | 256 films | a million" in done.stdout
    assert {*json.loads((tmp_path/"g.json").read_text())["results"]} == {"128", "256"}

@pytest.mark.parametrize("script, kept", [("bench.py", "chest_xray_224.json"), ("growth.py", "growth.json")])
def test_the_findings_hold_the_tables_of_the_kept_measurements(tmp_path, script, kept):
    findings = (BENCHMARKS.parent/"nbs/49_findings.py").read_text(encoding="utf-8")
    page = written(tmp_path, script, BENCHMARKS/kept)
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert len(table) > 4 and [line for line in table if f"# {line}\n" not in findings] == []

def test_an_unknown_row_is_named():
    done = run("bench.py", "--rows", "speed")
    assert done.returncode == 2 and "expected rows among pipeline" in done.stderr
    assert "found speed" in done.stderr
