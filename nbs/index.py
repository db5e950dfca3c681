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
# Can a network tell from a frontal chest X-ray whether a child has pneumonia, how sure can we be of the answer, and what
# does the network look at? This study compares a multilayer perceptron, a convolutional network and a ResNet50 on the
# films of Kermany et al. (2018), from the raw files to explanations by occlusion. It is written as notebooks that can be
# read in order, run with other parameters, and imported as a package.
#
# Many notebooks on these films exist, and most share some faults: patients on both sides of a split, validation on
# distorted films, networks fed the wrong colours, explanations with blue and red swapped, numbers typed by hand. Here
# each of these is avoided in the open, with a test that holds it.
#
# ## Two commands
#
# With Python 3.10, 3.11 or 3.12, make and a network:
#
# ```sh
# make report                     # installs into .venv, runs the study on drawn phantoms, prints where to open the report
# make report DATA=DIR PARAMS=params/reference.yaml RUN=real    # the study's own settings, on films in DIR
# ```
#
# The first takes a few minutes on a laptop once installed. The second needs the public films, in the layout of
# Kaggle's set (`train/NORMAL/…`, `test/PNEUMONIA/…`); `.venv/bin/pneumo data fetch films` downloads them (1.2 GB, no
# account needed) and prints the folder to give as `DATA`. The second command also fetches ResNet50's ImageNet weights;
# where that is not possible it says so and stops, and
# `.venv/bin/pneumo run -f params/reference.yaml -p resnet.weights=none --data DIR --run real` does without.
#
# **Phantoms** are chest X-rays drawn by a program. They let anyone run everything, and every figure in this repository
# shows them, never a real child. Numbers on phantoms say nothing about real films.
#
# ## What comes out
#
# A run is a folder, `runs/NAME/`, and nothing travels between the notebooks but its files:
#
# | file | what it holds |
# | --- | --- |
# | `params.yaml`, `provenance.json` | what was asked; what was done, with which code, packages, machine, films and seed |
# | `images.csv` | every film with its split and patient |
# | `models/*.keras` | trained networks; each takes gray films (N, size, size, 1) from 0 to 255 and gives a probability |
# | `history/*.csv`, `predictions/*.csv` | one row an epoch; one row a film |
# | `comparison.csv`, `metrics/` | the models side by side, with intervals |
# | `figures/*.png`, `notebooks/*.ipynb` | the figures, the executed notebooks |
# | `site/index.html` | the report |
#
# A run that was stopped goes on where it was, even inside a training, and gives the same numbers as one that was not. Stages
# whose parameters and inputs have not changed are skipped.
#
# Decoded films and the features of ResNet50's frozen part are kept in a cache that all runs share: the folder in
# `PNEUMO_CACHE`, or else the user's own cache folder. It holds at most `PNEUMO_CACHE_GB` (60); a run with the study's
# own settings puts about 8 GB there, with `resnet.views=0` 0.3 GB. `pneumo data clean` empties it.
# `PNEUMO_THREADS` limits the threads.
#
# ## Two sites
#
# **The report of a run** (`pneumo report RUN`, the end of `make report`) has a landing page, the executed notebooks as chapters, a
# page on which the threshold can be moved, and methods and limits. `runs/index.html` lists all runs side by side and sorts by any
# metric or parameter. **The documentation** (`make docs`, in `_docs/`) has the same chapters executed on phantoms and an entry for
# every function. Both open from a disk, work below any address, and ask no other host for anything.
#
# With [Quarto](https://quarto.org) 1.4 or newer on the `PATH` it renders both, from the one `_quarto.yml`; `nbdev_docs` and
# `nbdev_preview` then work, too, on the notebooks as they are in the repository, without outputs. Without Quarto nbconvert renders the
# same pages under the same names. The command says which it was. `.github/workflows/` tests every push and publishes the documentation
# to GitHub Pages. Scripts of others are in `nbs/assets/`, with their licences.
#
# ## Results
#
# On the official test films. The table is written by `pneumo results`, not by hand.
#
# <!-- results: written by `pneumo results RUN --write FILE` -->
#
# | model | AUROC | accuracy | sensitivity | specificity | F1 normal | F1 pneumonia | epochs | training |
# | --- | --- | --- | --- | --- | --- | --- | --- | --- |
# | MLP | 0.830 (0.793–0.867) | 0.745 (0.710–0.778) | 0.713 (0.666–0.755) | 0.799 (0.743–0.845) | 0.702 | 0.778 | 8 | 224 s |
# | CNN | 0.934 (0.912–0.953) | 0.861 (0.831–0.886) | 0.964 (0.941–0.978) | 0.688 (0.626–0.744) | 0.787 | 0.896 | 7 | 1,875 s |
# | ResNet50, frozen | 0.520 (0.477–0.568) | 0.551 (0.512–0.590) | 0.792 (0.749–0.830) | 0.150 (0.110–0.201) | 0.200 | 0.688 | 1 | 406 s |
# | ResNet50, fine-tuned | 0.561 (0.517–0.609) | 0.571 (0.531–0.609) | 0.715 (0.669–0.758) | 0.329 (0.272–0.392) | 0.365 | 0.676 | 1 | 1,044 s |
#
# Run `real` on `chest_xray_224`, films of 224 pixels, 2 cores, commit b14dc3c183, c621edc46a. In brackets 95 % intervals. resnet: weights is "none": the trunk is random, so nothing is transferred and the frozen model sees the films through a random projection.
#
# <!-- end of results -->
#
# These are the study's own settings (`params/reference.yaml`) with one exception: ResNet50 began with random weights, since
# ImageNet's could not be fetched where it ran. Its rows show that the code works, not what transfer learning can do. What the
# other models show is how far validation flatters: the report of a run puts each model's validation AUROC beside that on test.
#
# For comparison, the reference study that this one repeats reported AUROC .832 (MLP), .936 (CNN) and .936 (fine-tuned
# ResNet50 with ImageNet weights) at accuracies of .763, .872 and .867, without intervals, and trained for 1,101 s (MLP), 3,534 s
# (CNN) and 1,138 s + 1,312 s (ResNet50, frozen and fine-tuned) on its own machine.
#
# ## Speed
#
# `make bench` runs this project and the reference study's own way (Keras's `ImageDataGenerator` reading JPEGs, `fit` on it, one
# `predict` for each occlusion patch) in turn, on phantoms or with `DATA=DIR` on other films, and writes this table:
#
# <!-- benchmark: written by `make bench WRITE=FILE` -->
#
# | what | this project | the study's way | ratio | goal |
# | --- | --- | --- | --- | --- |
# | augmented input, films/s | 8,874 (8,475–9,273) | 133 (118–149) | 66.6x | 20x |
# | training, MLP, films/s | 480 (469–492) | 70.2 (68.5–71.9) | 6.8x | 5x |
# | training, CNN, films/s | 30.0 (29.8–30.2) | 24.4 (22.7–26.0) | 1.23x | 1.4x |
# | ResNet50 frozen, 20 epochs, s | 489 (479–498) | 5,407 (5,197–5,618) | 11.1x | 10x |
# | ResNet50 fine-tuned, 10 epochs, s | 1,068 (1,055–1,082) | 3,315 (3,146–3,484) | 3.1x | 3x |
# | occlusion map, MLP, s | 0.21 (0.20–0.22) | 29.7 (28.8–30.6) | 144x | 50x |
# | occlusion map, CNN, s | 0.67 (0.67–0.68) | 29.0 (28.7–29.3) | 43.1x | 10x |
# | occlusion map, ResNet50, s | 22.1 (22.0–22.2) | 68.8 (66.4–71.1) | 3.1x | 2x |
# | decoded films, second run, s | 0.02 (0.02–0.02) |  |  | decodes nothing |
# | import pneumo_nb, s | 0.03 (0.03–0.03) |  |  | 0.3 s |
# | pneumo --help, s | 0.10 (0.10–0.11) |  |  | 1 s |
#
# Medians, lowest and highest of 2 runs in turn at 224 pixels on 688 phantoms; 2 cores, 201 GFLOP/s in a large product and 228 in a large convolution; commit 47eac5f27d. Speed of training with its input, as a share of that on films already in memory: MLP 90%; CNN 99%. Training the CNN does 137 GFLOP/s, 60% of the large convolution's.
#
# <!-- end of benchmark -->
#
# The rates of training are of whole steps, input and all. The CNN gains least, and less than its goal: it already trains about as fast as
# on films in memory, so no input could make it faster. ResNet50's rows are multiplied up to the study's 4,183 train
# and 1,049 validation films; the frozen row bears the pass through the trunk that both use. `benchmarks/chest_xray_224.json` holds
# the same on the public films, measured later on a faster machine: compare within a file, not across.
#
# What becomes of time and memory when the set grows (`make growth`):
#
# <!-- growth: written by `make growth WRITE=FILE` -->
# <!-- end of growth -->
#
# ## The notebooks
#
# | notebook | what it is about |
# | --- | --- |
# | `00_run` | the run directory, parameters, seeds, provenance, plot style |
# | `01_phantom` | drawing chest X-rays |
# | `02_data` | finding, checking and splitting films by patient |
# | `03_eda` | how many, what they look like, what their sizes give away |
# | `04_preprocessing` | decoding once, augmentation, class weights |
# | `05_training` | one way to fit, stop, resume and predict |
# | `06_mlp`, `07_cnn`, `08_resnet` | the models |
# | `09_evaluation` | how good, how sure, whether they differ |
# | `10_xai` | what they look at |
# | `11_pages`, `12_report`, `13_cli` | pages from notebooks; the report and the documentation; the `pneumo` command |
#
# A notebook imports only from notebooks with a lower number. Each stage also runs alone, in Jupyter or with
# `papermill nbs/07_cnn.ipynb out.ipynb -p epochs 2 -p run_dir DIR`; what it misses it makes from a few phantoms, and says so.
#
# ## More ways to use it
#
# ```sh
# .venv/bin/pneumo run -p cnn.epochs=3 --run short          # one parameter changed
# .venv/bin/pneumo run --run short --only evaluation,xai -p evaluation.threshold=0.4
# .venv/bin/pneumo report short                              # its report again
# .venv/bin/pneumo data check DIR                            # what is wrong with a folder of films
# .venv/bin/jupyter lab nbs                                  # interactively
# ```
#
# ```python
# import numpy as np
# from pneumo_nb.cnn import build_cnn
# from pneumo_nb.xai import occlusion_map
#
# model = build_cnn(image_size=64)                       # not trained
# maps = occlusion_map(model, np.zeros((1, 64, 64)), patch_size=12, stride=6)
# ```
#
# To change something, edit the percent script (`nbs/07_cnn.py`), run `make sync`, which writes the notebook, the package and
# this README, then `make test`, and commit all of them together.
#
# ## What it does not know
#
# The films are of children of one to five years from one hospital in Guangzhou. Who is on a film is inferred from its
# name. The published test films differ from the train films in ways that are not understood, and validation does not
# feel that difference. Films are squashed to a square, which turns a difference in format between sick and healthy into a
# difference in shape. One split and one seed are reported. None of this is a medical device.
#
# ## Sources
#
# Films: D. Kermany, K. Zhang, M. Goldbaum, *Labeled Optical Coherence Tomography (OCT) and Chest X-Ray Images for
# Classification*, Mendeley Data, doi:10.17632/rscbjbr9sj, CC BY 4.0; Kermany et al., *Cell* 172 (2018) 1122–1131. Code: Apache-2.0.
