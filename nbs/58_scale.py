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
# # How far it scales
#
# > What outgrows one machine, what then helps, and what was measured of it

# %%
#| hide
import json

import pandas as pd
from pneumo_nb.run import project_folder

# %% [markdown]
# Three things outgrow a laptop, and each goes to something that many people run already:
#
# | what grows | what helps | the command |
# | --- | --- | --- |
# | the number of runs | a cluster of Dask, on one machine or many | `pneumo sweep SWEEP.yaml --workers 2` |
# | the number of films | the same | `pneumo predict … --out FOLDER --workers 2` |
# | one training | several GPUs of one machine | `PNEUMO_DEVICES=2 pneumo run` |
#
# Nothing here schedules anything by itself. With `--workers` a cluster begins on this machine and ends with
# the command; `--scheduler tcp://host:8786` uses one that runs.
#
# ## Many runs
#
# Each point of a sweep is an ordinary run in a folder of its own, done by one worker in one process. Points
# do not talk to each other, so twice the machines do twice the points. Decoded films are shared, and phantoms
# are drawn once. Folders and cache must lie where all workers see them.
#
# The bottleneck of a sweep of small runs is the start of a kernel with TensorFlow, some seconds a stage. Ask
# for no more stages than the question needs. With large runs it is memory: a worker holds one run, some GB
# at 224 pixels.
#
# A worker that is killed loses the stage in flight. A sweep of 24 points, killed twice, gave the table of the
# same sweep without kills, and `tests/test_sweep.py` kills one each time that it runs.
#
# ## Many films
#
# The films are listed once, into a plan of parts of 512. A task is the number of a part, a few of them are in
# flight, and each part becomes a Parquet file. So neither the scheduler nor a worker knows how many films
# there are. What a killed worker leaves is done by another, and a part that is there is not done again.
#
# The table has the growth that was measured, with films of 96 pixels and a network of a few weights. There is
# next to nothing to compute, so what is left is the cost of reading, checking and writing. A network's own
# time comes on top of it, and makes the share of everything else smaller. Growth is that of the later half of
# a call. Seconds include the start of the workers; films a second do not. Other work ran on the machine, so
# rates that differ by a third do not tell one way from another.

# %%
measured = json.loads((project_folder()/"benchmarks/many.json").read_text())["results"]
growth = pd.DataFrame([dict(films=int(films), by=by) | values
                       for films, ways in measured.items() for by, values in ways.items()])
words = {"seconds": "seconds", "films_per_second": "films a second", "worker_peak_mb": "worker, MB",
         "worker_growth_mb": "its growth, MB", "scheduler_peak_mb": "scheduler and client, MB"}
ways = {"plain": "one process", "1 workers": "one worker", "2 workers": "two workers"}
shown = growth[["films", "by", *words]].replace(ways).rename(columns=words)
forms = {"films": "{:,}"} | dict.fromkeys(words.values(), "{:,.1f}")
shown.style.hide(axis="index").format(forms, na_rep="–")

# %% [markdown]
# At the slowest of these rates, that much takes so many hours of one core:

# %%
slowest = growth[growth.by != "plain"].films_per_second.min()
cores = json.loads((project_folder()/"benchmarks/many.json").read_text())["machine"]["cores"]
hours = {f"{films:,} films": films / slowest * cores / 3600 for films in (1_000_000, 100_000_000)}
pd.DataFrame({"core-hours": hours}).style.format("{:,.1f}")

# %% [markdown]
# On two cores a second worker changes little, since one already uses both: decoding and the network have
# threads of their own. Workers help where there are more cores than a process uses, and on other machines.
#
# | films | what is slow | what to do |
# | --- | --- | --- |
# | thousands | the start of a process, about ten seconds | no workers |
# | a million | decoding; of large films nearly all of the time | workers on as many cores as there are |
# | a hundred million | probably the store, one request a film; not tried | films where the workers are |
#
# ## One larger training
#
# `PNEUMO_DEVICES` spreads a training over GPUs of one machine; the chapter on training says which numbers
# stay the same. With two parts of a processor in place of GPUs, losses, weights and answers of a network
# without dropout or batch normalisation agree to 1e-5, and a killed training goes on
# (`tests/test_devices.py`). The networks of this study are small, so more devices help only with batches that
# are large enough for each. On several GPUs it was not measured.
#
# **Several machines** for one training are not built in. Keras 3 does not support TensorFlow's
# `MultiWorkerMirroredStrategy`: `fit` fails on the values of its replicas. Keras on JAX does it, with
# `jax.distributed` and `keras.distribution.DataParallel`. In a trial with Keras 3.15.1 and JAX 0.10.2, two
# processes on one machine gave the losses of one to 1e-7, also with dropout and batch normalisation. But
# input, backups and maps of this study are TensorFlow's, so that would be a second way to train. Who has
# several machines gives each another fold or seed, by a sweep.
#
# Networks of one recipe train side by side by processes of this project (`PNEUMO_WORKERS`), not by Dask. Such
# a process prepares one network and trains many folds with it; a Dask task would prepare its own each time.
#
# ## On a cluster
#
# Any cluster of Dask will do. Workers need this package, the run's folder and the cache, so both lie on a
# file system that all of them share. By hand, on two machines:
#
# ```sh
# dask scheduler                                    # on the first, prints its address
# dask worker tcp://FIRST:8786 --nthreads 1         # on each
# pneumo sweep SWEEP.yaml --scheduler tcp://FIRST:8786
# ```
#
# On SLURM [dask-jobqueue](https://jobqueue.dask.org) asks for the workers:
#
# ```python
# from dask_jobqueue import SLURMCluster
#
# cluster = SLURMCluster(cores=8, processes=1, memory="32GB", walltime="04:00:00")
# cluster.scale(jobs=10)
# print(cluster.scheduler_address)   # for --scheduler
# ```
#
# On Kubernetes the operator of [dask-kubernetes](https://kubernetes.dask.org) does, with an image that has
# this package and a volume that all pods mount:
#
# ```python
# from dask_kubernetes.operator import KubeCluster
#
# cluster = KubeCluster(name="films", image="YOUR/IMAGE", n_workers=10)
# print(cluster.scheduler_address)
# ```
#
# The first way was tried on one machine. The other two were not, for want of such clusters: from the
# scheduler's address on, they are the same.
#
# ## Films elsewhere
#
# Where `predict`, `judge` and `data check` take a folder, they take an address such as `s3://bucket/films`.
# The library fsspec reads it, with credentials from where it always takes them: for S3 the variables and
# files of AWS, and `AWS_ENDPOINT_URL` for another store. A judgement and a check need all films several
# times. So they bring them into a temporary folder and say so. A store that goes away is asked again for two
# minutes. No film is called unreadable because of it.
