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
# # pneumo_nb
#
# > Pneumonia detection from chest X-rays: a reproducible study in literate notebooks

# %% [markdown]
# Can a network tell from a chest X-ray whether a child has pneumonia, how sure is the answer, and what does
# the network look at? This study answers with networks of several kinds, from the raw films to explanations,
# in notebooks that can be read, run and imported.
#
# ![The first page of a report: what came out, a film with its map, and ROC curves](assets/readme_report.webp)
#
# ## Two commands
#
# With Python 3.10, 3.11 or 3.12, make and a network (all goes into `.venv`):
#
# ```sh
# make report   # runs the study on drawn films, prints where the report is
# make test     # everything that must hold
# ```
#
# Both take minutes. The drawn films are **phantoms**: no figure here shows a real child, and their numbers
# say nothing about real films.
#
# For **real films**, `.venv/bin/pneumo data fetch films` downloads the public set (1.2 GB, no account needed)
# and prints its folder. Another runs the recipe on it, two to three hours on two cores (reference
# study: `PARAMS=params/reference.yaml`):
#
# ```sh
# PNEUMO_WORKERS=2 make report DATA=FOLDER PARAMS=params/best.yaml RUN=real
# ```
#
# ## Results
#
# On the 624 official test films, at a threshold of .5:
#
# <!-- summary: written by `pneumo summary --write FILE`; rows: joint ensemble @ best;
# EfficientNet, fine-tuned @ best; compact net @ best; CNN @ reference; reference study, CNN @ published;
# Kermany et al. 2018, Inception-v3, transferred @ published; MedMNIST v2, Google AutoML Vision @ published
# -->
#
# | model | run | AUROC | accuracy at the run's threshold | looks before |
# | --- | --- | --- | --- | --- |
# | joint ensemble | best | 0.9860 (0.975–0.992) | 0.9295 (0.905–0.951) | 72 |
# | EfficientNet, fine-tuned | best | 0.9819 (0.967–0.990) | 0.9375 (0.914–0.958) | 72 |
# | compact net | best | 0.9807 (0.968–0.988) | 0.9391 (0.917–0.958) | 72 |
# | CNN | reference | 0.9302 (0.908–0.950) | 0.8846 (0.858–0.909) | 0 |
# | reference study, CNN | published | 0.936 | 0.872 | – |
# | Kermany et al. 2018, Inception-v3, transferred | published | 0.968 | 0.928 | – |
# | MedMNIST v2, Google AutoML Vision | published | 0.991 | 0.946 | – |
#
# Beyond chance (paired over patients, Holm) joint ensemble differs in AUROC from compact net; not from
# EfficientNet, fine-tuned.
#
# <!-- end of summary -->
#
# **Test had a say in the first rows**: mistakes and trials on test suggested what other films then chose. A
# quarter of the compact net's error there is shift. The rest is in `nbs/49_findings.ipynb`.
#
# ## What comes out
#
# ![A phantom with drawn pneumonia, and a map of what speaks for it to a network](assets/readme_film.webp)
#
# A run is a folder, `runs/NAME/`:
#
# | file | what it holds |
# | --- | --- |
# | `site/index.html` | the report |
# | `comparison.csv`, `metrics/` | the models side by side, with intervals |
# | `predictions/*.csv`, `images.csv` | one row a film: what each model says; split and patient |
# | `models/*.keras`, `history/*.csv` | trained networks; one row an epoch |
# | `notebooks/*.ipynb`, `figures/*.png` | the executed notebooks and their figures |
# | `params.yaml`, `provenance.json` | what was asked; what was done, with which code, films and seed |
#
# A stopped run goes on where it was, to the same numbers.
#
# ## More ways to use it
#
# ```sh
# .venv/bin/pneumo run -p cnn.learning_rate=3e-4 --run slow
# .venv/bin/pneumo data check FOLDER                          # faults of films
# .venv/bin/papermill nbs/34_cnn.ipynb runs/cnn.ipynb -p epochs 2   # a chapter
# .venv/bin/jupyter lab nbs                                   # interactively
# ```
#
# Installed from a wheel (`pip wheel --no-deps .`), `pneumo` works in any folder, without a checkout;
# `pneumo notebooks DIR` copies the chapters out.
#
# ## Your own films
#
# ```sh
# .venv/bin/pneumo bundle quick --out quick.pneumo   # one file
# .venv/bin/pneumo predict quick.pneumo FILMS --out answers.csv   # DICOM too
# .venv/bin/pneumo judge quick.pneumo --data FOLDER   # another hospital's
# .venv/bin/pneumo recalibrate quick.pneumo --data FOLDER --out local.pneumo
# .venv/bin/pneumo serve quick.pneumo
# ```
#
# ```python
# from pneumo_nb.detector import Detector
#
# detector = Detector.load("quick.pneumo")
# detector.predict(["FILM.jpeg"])   # probability, range, call, flags
# detector.explain("FILM.jpeg")   # (H, W)
# ```
#
# ## Settings
#
# `PNEUMO_THREADS` limits threads, `PNEUMO_DEVICES` takes several GPUs: the same numbers need as many.
# `PNEUMO_WORKERS` trains networks side by side. `PNEUMO_CACHE` keeps decoded films; `pneumo data clean`
# empties it.
#
# ## Where things are
#
# The notebooks in `nbs/` are the source of everything; each imports only from lower numbers:
#
# | floor | numbers | what is there |
# | --- | --- | --- |
# | instruments | 00–29 | one idea each, examples as tests: films, splits, views, networks … |
# | the study | 30–49 | the report's chapters: data, exploration, models, evaluation, explanations |
# | in people's hands | 50–69 | pages, report, results, documentation, the command `pneumo` |
#
# To change something, edit a percent script (`nbs/34_cnn.py`), run `make sync`, then `make test`.
# `make docs` renders the documentation.
#
# ## What it does not know
#
# The films are of children of one to five years from one hospital. Who is on a film is inferred from its
# name. Test films differ from train films, and no validation feels all of that. Squashing films to a square
# turns a difference in format between sick and healthy into one of shape. None of this is a medical device.
#
# ## Sources
#
# Films: D. Kermany, K. Zhang, M. Goldbaum, Mendeley Data, doi:10.17632/rscbjbr9sj, CC BY 4.0; Kermany et al.,
# *Cell* 172 (2018) 1122–1131. Code: Apache-2.0; scripts of others are in `nbs/assets/`, with their licences.
