"""Workers end with whoever began them, and nothing that they were given is lost when one of them ends."""
import os, subprocess, sys, time

import psutil
import pytest

WORK = """
import os, time
from pathlib import Path

def note_and_wait(tasks, folder, seconds):
    for task in tasks:
        Path(folder, task).write_text(str(os.getpid()))
        time.sleep(seconds)
"""
BEGIN = """
import sys
from pneumo_nb.workers import side_by_side
if __name__ == "__main__":
    folder, seconds = sys.argv[1], float(sys.argv[2])
    sys.path.insert(0, folder)
    sys.exit(side_by_side("work", "note_and_wait", (folder, seconds), {n: n for n in "abcd"}, 2))
"""

def begin(folder, seconds):
    (folder/"work.py").write_text(WORK)
    (folder/"begin.py").write_text(BEGIN)
    return subprocess.Popen([sys.executable, folder/"begin.py", folder, str(seconds)],
                            stdout=subprocess.DEVNULL, env=os.environ | dict(PNEUMO_THREADS="2"))

def wait_for(files, seconds=60):
    end = time.time() + seconds
    while not all(file.exists() and file.read_text() for file in files):
        assert time.time() < end, f"{files} did not come within {seconds} s"
        time.sleep(.01)
    return [psutil.Process(int(file.read_text())) for file in files]

@pytest.mark.parametrize("by_force", [True, False])
def test_workers_end_with_whoever_began_them(tmp_path, by_force):
    parent = begin(tmp_path, 600)
    workers = wait_for([tmp_path/"a", tmp_path/"b"])
    family = psutil.Process(parent.pid).children(recursive=True)
    assert {w.pid for w in workers} <= {p.pid for p in family} and len(set(workers)) == 2
    parent.kill() if by_force else parent.terminate()
    assert parent.wait(timeout=60) != 0
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive and not (tmp_path/"c").exists()

def test_a_killed_worker_holds_up_nobody(tmp_path):
    parent = begin(tmp_path, 1.5)
    first, _ = wait_for([tmp_path/"a", tmp_path/"b"])
    first.kill()
    assert parent.wait(timeout=60) == 1   # the number of workers that ended early
    assert (tmp_path/"c").exists() and (tmp_path/"d").exists()
