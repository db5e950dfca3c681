# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: python3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Workers
#
# > Tasks done side by side by processes of their own, with what they print, and ended with whoever began them

# %%
#| default_exp workers

# %%
#| export
import importlib, io, multiprocessing, os, sys, threading
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait

from pneumo_nb.run import threads
from pneumo_nb.style import counted

# %%
#| hide
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock
from fastcore.test import test_eq


# %% [markdown]
# A small network keeps several cores less busy than several such networks keep a core each. Two networks at
# 96 pixels, trained at the same time on two cores, got 1.2 times as many films done in a second as one. So a
# chapter that trains several networks may train them side by side.
#
# This notebook knows nothing of networks. It has **tasks**, and **workers** that do them: processes that
# start afresh, each with its share of the threads. A worker takes the next task when it is free, so a long
# task holds up only one of them. Results are left in files, as a killed training leaves its own.
#
# ## Shares
#
# Each worker keeps to cores of its own, where the system lets a process choose. Otherwise two workers might
# crowd onto one core while another is idle.

# %%
#| export
def _core_shares(
    count: int, # of workers
    each: int,  # threads of a worker
) -> list[set[int]]: # for each worker its cores; empty for any of them
    "Which cores each worker keeps to."
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if count * each > len(cores): return [set() for _ in range(count)]
    return [set(cores[n * each:(n + 1) * each]) for n in range(count)]


# %%
cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
shares = _core_shares(max(cores, 1), 1)
test_eq(len(set().union(*shares)), cores)         # no core is in two shares
test_eq(_core_shares(cores + 1, 1), [set()] * (cores + 1))


# %% [markdown]
# How many threads a library uses is read from the environment when it starts. So the share stands there while
# workers are started, and not longer.

# %%
#| export
@contextmanager
def _environment(values: dict[str, str]):
    "Environment variables, for as long as the block lasts."
    before = dict(os.environ)
    os.environ.update(values)
    try: yield
    finally:
        os.environ.clear()
        os.environ.update(before)

def thread_variables(each: int) -> dict[str, str]:
    "What tells this package and TensorFlow to use so many threads."
    names = "PNEUMO_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"
    return dict.fromkeys(names, str(each))


# %%
before = dict(os.environ)
with _environment(thread_variables(3)): test_eq(threads(), 3)
test_eq(dict(os.environ), before)


# %% [markdown]
# ## What a worker does
#
# A worker and the process that began it talk over a connection. The worker sends each line that it prints,
# and `None` when it wants a task. What it prints is passed on with the name of the task before it.

# %%
#| export
class _LinesTo(io.TextIOBase):
    "A text stream that sends each line to a connection, with the name of the task at work before it."
    def __init__(self, connection):
        self.connection, self.task, self.rest = connection, "", ""

    def write(self, text):
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines: self.connection.send(f"{self.task}: {line}")
        return len(text)


# %%
class Sent(list): send = list.append
lines = _LinesTo(Sent())
lines.task = "first"
print("epoch 1", "loss .5", file=lines)
print("unfin", end="", file=lines)
test_eq(lines.connection, ["first: epoch 1 loss .5"])
print("ished", file=lines)
test_eq(lines.connection[1], "first: unfinished")


# %% [markdown]
# Tasks are asked for one by one.

# %%
#| export
def _tasks_from(
    connection,      # to the process that hands out tasks
    lines: _LinesTo,
): # yields tasks
    "The next task that nobody has begun, until there is none."
    while True:
        connection.send(None)
        following = connection.recv()
        if following is None: return
        lines.task, task = following
        yield task


# %% [markdown]
# Someone may end a run at any moment, and by force. Its workers must not go on, or the next run would find
# the machine busy and its files changing. A thread in each worker waits for its parent's end and then ends
# the worker.

# %%
#| export
def _end_with_parent():
    "End this process when its parent does, however that ends."
    multiprocessing.parent_process().join()
    os._exit(1)


# %%
#| export
def _work(
    connection: Connection,
    cores: set[int],  # to keep to; empty for any
    module: str,      # that has the function
    function: str,
    arguments: tuple,
):
    "What a worker process does from its start to its end."
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if cores: os.sched_setaffinity(0, cores)
    sys.stdout = lines = _LinesTo(connection)
    do = getattr(importlib.import_module(module), function)
    do(_tasks_from(connection, lines), *arguments)


# %% [markdown]
# ## Handing out
#
# The process that began the workers answers them until each has closed its connection, which it does at its
# end, whatever that is. So a worker that fails takes its task with it, and the others go on.

# %%
#| export
def _hand_out(
    connections: list,      # one to each worker
    tasks: dict[str, object], # name → task
):
    "Give tasks to whoever asks, and print what is sent, until all workers have ended."
    open_ones, following = list(connections), iter(tasks.items())
    while open_ones:
        for connection in wait(open_ones):
            try:
                line = connection.recv()
                if line is None: connection.send(next(following, None))
                else: print(line, flush=True)
            except (EOFError, OSError): open_ones.remove(connection)


# %% [markdown]
# `_begin` starts one worker. A process that starts afresh knows nothing of a notebook's definitions, so its
# function is looked up in the package.

# %%
#| export
def _begin(
    cores: set[int],
    *what, # module, function and arguments, as for `_work`
): # the process; the connection to it
    "Start a worker."
    fresh = multiprocessing.get_context("spawn")
    here, there = fresh.Pipe()
    work = importlib.import_module("pneumo_nb.workers")._work
    process = fresh.Process(target=work, args=(there, cores, *what), daemon=True)
    process.start()
    there.close()  # so that the worker's end closes the connection
    return process, here


# %% [markdown]
# `side_by_side` ties it together. The function is named by its module, and gets an iterator over its share of
# the tasks, then the arguments. It may prepare what all of its tasks need once.

# %%
#| export
def side_by_side(
    module: str,              # such as "pneumo_nb.something"
    function: str,            # in it; called as `function(its_tasks, *arguments)` by each worker
    arguments: tuple,         # can be pickled, like the tasks
    tasks: dict[str, object], # name → task, in the order to begin them
    count: int,               # workers
) -> int: # how many workers ended with an error
    "Do tasks in several processes at the same time and print their lines."
    count = min(count, len(tasks))
    each = max(threads() // count, 1) if count else 1
    print(f"{count} processes, {counted(each, 'thread')} each")
    started = []
    try:
        with _environment(thread_variables(each)):
            for cores in _core_shares(count, each): started.append(_begin(cores, module, function, arguments))
        _hand_out([connection for _, connection in started], tasks)
        for process, _ in started: process.join()
    finally:
        for process, _ in started: process.kill()
    return sum(process.exitcode != 0 for process, _ in started)


# %% [markdown]
# A toy stands for a training. It writes a file for each task and waits until there are so many files. Where
# it waits for two, tasks in line would wait in vain, so that they end at all shows that they are done at the
# same time. A task of 0 ends its process, as a lack of memory might.

# %%
toy = '''
import os, time
from pathlib import Path

def divide(tasks, folder, awaited):
    for task in tasks:
        if task == 0: os._exit(1)
        print("dividing by", task)
        Path(folder, f"{task}.txt").write_text(f"{1 / task} with {os.environ['PNEUMO_THREADS']} threads")
        give_up = time.time() + 60
        while len(list(Path(folder).glob("*.txt"))) < awaited:
            if time.time() > give_up: raise TimeoutError
            time.sleep(.01)
'''
def divided(tasks, awaited):
    printed = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, mock.patch("sys.path", [folder, *sys.path]):
        Path(folder, "toy.py").write_text(toy)
        with mock.patch.dict(os.environ, PNEUMO_THREADS="4"), redirect_stdout(printed):
            failed = side_by_side("toy", "divide", (folder, awaited), tasks, count=2)
        files = {f.stem: f.read_text() for f in Path(folder).glob("*.txt")}
    return failed, printed.getvalue(), files

failed, printed, files = divided({"half": 2, "quarter": 4, "eighth": 8}, awaited=2)
print(printed)
test_eq(failed, 0)
test_eq(files, {"2": "0.5 with 2 threads", "4": "0.25 with 2 threads", "8": "0.125 with 2 threads"})
assert "2 processes, 2 threads each" in printed and "half: dividing by 2" in printed

# %% [markdown]
# One of two workers ends at its first task. The other does the rest, and the caller is told:

# %%
failed, _, files = divided({"none": 0, "half": 2, "quarter": 4}, awaited=1)
test_eq((failed, sorted(files)), (1, ["2", "4"]))
test_eq(divided({}, awaited=0)[0], 0)
