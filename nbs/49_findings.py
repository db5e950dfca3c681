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
# # Findings
#
# > What the results on the public films mean, what was learned on the way, and what it cost

# %%
#| hide
import pandas as pd
from pneumo_nb.run import project_folder
from pneumo_nb.style import in_list, plot_style, show_figure, value_with_interval
from pneumo_nb.explanation import METHODS
from pneumo_nb.faithfulness import shown_faithfulness
from pneumo_nb.hospital import plot_trial, trial_table
plot_style()
assets = project_folder()/"nbs/assets"

# %% [markdown]
# The results in this chapter were measured on the public films (Kermany et al., 2018). Commands wrote its
# tables from the files of finished runs. The chapters before it show how; their figures show phantoms, whose
# numbers are no result.
#
# Four findings stand out:
#
# - Averaged, networks with ImageNet's weights and small ones trained from scratch reach an AUROC of .986 on
#   the test films. The small ones together reach .981, and the difference is beyond chance. Kermany et al.
#   published .968 with transferred weights, Google AutoML Vision .991.
# - At the threshold that sensitivity .95 on the folds chooses, no network is more accurate than .933 on test.
#   The better rankings did not help there.
# - About a quarter of a compact network's error on test is shift: it goes when networks know other films of
#   the same time.
# - Much of what a network can learn here is how a film was taken, not what it shows. Lending films the frames
#   of others loosens the hold on the frame, but does not end it.

# %% [markdown]
# ## Results on the test films
#
# <!-- results: written by `pneumo results RUN... --write FILE` -->
#
# | model | run | AUROC | AUROC less that of joint ensemble @ best | accuracy at the run's threshold | accuracy, sensitivity .95 | looks before | trained | training | parameters |
# | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
# | joint ensemble | best | 0.9860 (0.975–0.992) | – | 0.9295 (0.905–0.951) | 0.9231 (0.898–0.945) | 72 | 6 together | 5,139 s | 13,940,562 |
# | EfficientNet ensemble | best | 0.9855 (0.975–0.992) | -0.0005 (-0.003 to 0.002), p 0.76 | 0.9295 (0.905–0.950) | 0.9231 (0.897–0.945) | 72 | 3 together | 3,623 s | 10,250,601 |
# | EfficientNet, fine-tuned | best | 0.9819 (0.967–0.990) | -0.0041 (-0.009 to 0.001), p 0.22 | 0.9375 (0.914–0.958) | 0.9199 (0.893–0.943) | 72 | 1 | 1,054 s | 3,416,867 |
# | compact ensemble | best | 0.9809 (0.968–0.989) | **-0.0051 (-0.008 to -0.002), p 0.007** | 0.9375 (0.915–0.956) | 0.9311 (0.907–0.951) | 72 | 3 together | 1,516 s | 3,689,961 |
# | compact net | best | 0.9807 (0.968–0.988) | **-0.0052 (-0.009 to -0.002), p 0.011** | 0.9391 (0.917–0.958) | 0.9295 (0.907–0.949) | 72 | 1 | 675 s | 1,229,987 |
# | EfficientNet, frozen | best | 0.9581 (0.940–0.971) | **-0.0279 (-0.039 to -0.017), p < 0.001** | 0.8446 (0.813–0.876) | 0.8542 (0.823–0.885) | 72 | 1 | 40 s | 3,414,305 |
# | compact net, mean and range | best | 0.9804 (0.980–0.981) | – | 0.9370 (0.934–0.939) | 0.9300 (0.928–0.933) | 72 | 3 apart | – | – |
# | EfficientNet, fine-tuned, mean and range | best | 0.9829 (0.982–0.985) | – | 0.9322 (0.918–0.941) | 0.9183 (0.909–0.926) | 72 | 3 apart | – | – |
# | joint ensemble, mean and range | best | 0.9852 (0.984–0.986) | – | 0.9290 (0.925–0.933) | 0.9209 (0.912–0.929) | 72 | 3 apart | – | – |
# | compact net | two_sizes | 0.9812 (0.971–0.990) | – | 0.9327 (0.910–0.953) | 0.9279 (0.904–0.949) | 25 | 1 | 996 s | 1,229,987 |
# | compact ensemble | two_sizes | 0.9811 (0.971–0.990) | – | 0.9327 (0.911–0.951) | 0.9311 (0.909–0.950) | 25 | 6 together | 4,806 s | 7,379,922 |
# | compact net, 64 pixels, mean and range | two_sizes | 0.9789 (0.977–0.980) | – | 0.9311 (0.923–0.939) | 0.9247 (0.915–0.939) | 25 | 3 apart | – | – |
# | compact net, 96 pixels, mean and range | two_sizes | 0.9811 (0.981–0.981) | – | 0.9332 (0.931–0.936) | 0.9236 (0.921–0.928) | 25 | 3 apart | – | – |
# | compact ensemble, mean and range | two_sizes | 0.9811 (0.980–0.982) | – | 0.9338 (0.931–0.938) | 0.9284 (0.921–0.934) | 25 | 3 apart | – | – |
# | compact net | pixels96 | 0.9802 (0.969–0.989) | – | 0.9279 (0.905–0.949) | – | 20 | 1 | 529 s | 1,229,987 |
# | compact ensemble | pixels96 | 0.9810 (0.971–0.990) | – | 0.9327 (0.912–0.953) | – | 20 | 6 together | 2,800 s | 7,379,922 |
# | compact net, mean and range | pixels96 | 0.9804 (0.979–0.982) | – | 0.9268 (0.917–0.936) | – | 20 | 6 apart | – | – |
# | compact ensemble, mean and range | pixels96 | 0.9807 (0.980–0.982) | – | 0.9311 (0.929–0.933) | – | 20 | 3 apart | – | – |
# | compact net | pixels64 | 0.9806 (0.969–0.990) | – | 0.9391 (0.917–0.958) | – | 10 | 1 | 290 s | 1,229,987 |
# | compact ensemble | pixels64 | 0.9808 (0.970–0.990) | – | 0.9455 (0.925–0.963) | – | 10 | 3 together | 835 s | 3,689,961 |
# | compact net, mean and range | pixels64 | 0.9801 (0.978–0.982) | – | 0.9386 (0.934–0.942) | – | 10 | 3 apart | – | – |
# | compact net | less_stretch | 0.9703 (0.956–0.983) | – | 0.8926 (0.864–0.918) | – | 7 | 1 | 378 s | 1,229,987 |
# | compact ensemble | less_stretch | 0.9748 (0.962–0.986) | – | 0.8942 (0.865–0.919) | – | 7 | 6 together | 2,262 s | 7,379,922 |
# | compact net, mean and range | less_stretch | 0.9729 (0.970–0.975) | – | 0.8929 (0.886–0.896) | – | 7 | 6 apart | – | – |
# | compact ensemble, mean and range | less_stretch | 0.9740 (0.973–0.975) | – | 0.8942 (0.893–0.897) | – | 7 | 3 apart | – | – |
# | MLP | reference | 0.8395 (0.802–0.871) | – | 0.7756 (0.737–0.811) | – | 0 | 1 | 125 s | 77,238,785 |
# | CNN | reference | 0.9302 (0.908–0.950) | – | 0.8846 (0.858–0.909) | – | 0 | 1 | 3,456 s | 26,212,545 |
# | ResNet50, frozen (random weights) | reference | 0.5096 (0.464–0.562) | – | 0.6074 (0.557–0.654) | – | 0 | 1 | 713 s | 26,211,201 |
# | ResNet50, fine-tuned (random weights) | reference | 0.8890 (0.855–0.921) | – | 0.8478 (0.816–0.875) | – | 0 | 1 | 1,823 s | 26,211,201 |
# | reference study, CNN | published | 0.936 | – | 0.872 | – | – | – | – | – |
# | reference study, ResNet50, fine-tuned | published | 0.936 | – | 0.867 | – | – | – | – | – |
# | Kermany et al. 2018, Inception-v3, transferred | published | 0.968 | – | 0.928 | – | – | – | – | – |
# | MedMNIST v2 (Yang et al. 2023), ResNet-18, 28 pixels | published | 0.944 | – | 0.854 | – | – | – | – | – |
# | MedMNIST v2, ResNet-18, 224 pixels | published | 0.956 | – | 0.864 | – | – | – | – | – |
# | MedMNIST v2, ResNet-50, 28 pixels | published | 0.948 | – | 0.854 | – | – | – | – | – |
# | MedMNIST v2, ResNet-50, 224 pixels | published | 0.962 | – | 0.884 | – | – | – | – | – |
# | MedMNIST v2, auto-sklearn | published | 0.942 | – | 0.855 | – | – | – | – | – |
# | MedMNIST v2, AutoKeras | published | 0.947 | – | 0.878 | – | – | – | – | – |
# | MedMNIST v2, Google AutoML Vision | published | 0.991 | – | 0.946 | – | – | – | – | – |
#
# Beyond chance (paired over patients, Holm) joint ensemble differs in AUROC from compact ensemble, compact
# net and EfficientNet, frozen; not from EfficientNet ensemble and EfficientNet, fine-tuned.
#
# Run `best`: `chest_xray_224`, films of 64 and 160 pixels, seed 42, 2 cores, 1 or 2 threads, commit
# a413da5e27, 34761aa0bf, 3 looks at the test films (in all 74 looks, 16 by 13 runs and 58 entered by hand),
# threshold 0.5. joint: only films that every recipe answered count; left out: 1,720 out-of-fold films of
# compact. Run `two_sizes`: `chest_xray_224`, films of 64 and 96 pixels, seed 42, 2 cores, commit
# 1b8475e716, 2bbfb44a94, 2 looks at the test films, threshold 0.5. Run `pixels96`: `chest_xray_224`, films
# of 96 pixels, seed 42, 2 cores, commit 1bd03517c8, a4cb62832a, 630cf8b0e7, 5 looks at the test films,
# threshold 0.5. Run `pixels64`: `chest_xray_224`, films of 64 pixels, seed 42, 2 cores, commit 1e61fd58ca,
# 9ddd7a8cd8, 3 looks at the test films, threshold 0.5. Run `less_stretch`: `chest_xray_224`, films of 64
# pixels, seed 42, 2 cores, commit 35b125e719, fc2e749f11, 32e29e5dc3, 3 looks at the test films, threshold
# 0.5. Run `reference`: `chest_xray_224`, films of 224 pixels, seed 42, 2 cores, commit 6e37044692,
# 35b125e719, fc2e749f11, 3 looks at the test films, threshold 0.5. resnet: weights is "none": the trunk is
# random, so nothing is transferred and the frozen model sees the films through a random projection. In
# brackets: 95 % intervals over patients; in rows of means the range over trainings. Accuracy, sensitivity
# .95: at the threshold that this rule chose on validation. Looks before: how often, as far as is known, any
# run had looked at the same test films before those of the row were judged. A dash: not known, or not
# compared. AUROC less another: after DeLong, paired over patients, on the films that both judged; p after
# Holm, over the rows written together; bold: beyond chance. The first row has the highest AUROC of its run
# on these very films, so its lead is a little too large.
#
# <!-- end of results -->
#
# Run `best` is `params/best.yaml`, by code in which its chapters of training are those of commit
# a413da5e27. What it would be was settled before it was judged: both recipes, all members, threshold by
# sensitivity .95. The aims set beforehand were an AUROC of .983 for single networks and .987 for all
# together, and accuracies of .935 and .942 at that threshold. **None is reached**: they are .983 (.9829),
# .986, .918 and .923. All 15 networks took 35 and 68 minutes, two at a time, beside other work; a
# transferred one 13 to 24 minutes. At the joint ensemble's threshold it finds 97.9 % of the bacterial and
# 98.6 % of the viral films.
#
# "Looks before" counts what is known. Looks of the first weeks, and those of trials made elsewhere, were
# entered by hand.
#
# Run `two_sizes` was `params/best.yaml` when the recipe could hold networks of two sizes. For each of three
# seeds one network saw the films at 96 pixels and one at 64. Further networks of both sizes left out a fold
# each; they chose thresholds and temperatures. No frames were lent there, nor in any run below it.
#
# Run `pixels96` is the recipe before: two networks a seed at 96 pixels, and one seed's folds chose for all.
# Run `pixels64` is the one before that, at 64 pixels and with `compact.bands=0`. Run `less_stretch` is
# earlier still, at 64 pixels. It had `compact.refits=2`, `bands=0`, `stretch=0.1`, `rotation=7`,
# `shift=0.04`, `cutout=0` and 40 epochs. Run `reference` is `params/reference.yaml` with a ResNet50 from
# random weights, since ImageNet's could not be fetched where it ran.
#
# The published rows were reached on the same 624 films, some with weights from outside. None came with an
# interval, and how often their authors looked at test is not known. The reference study trained for 1,101 s
# (MLP), 3,534 s (CNN) and 1,138 s + 1,312 s (ResNet50, frozen and fine-tuned) on its own machine. Times in
# the table were taken beside other work and are upper bounds. With nothing beside them the study's CNN took
# 1,601 s and ResNet50 827 s.

# %% [markdown]
# ## Which threshold
#
# The threshold .5 was fixed before anything was trained. The others were chosen on validation by three rules,
# for the compact networks on folds across the naming series. For the nine trainings of `two_sizes`, six
# networks and three ensembles, Youden's rule chose .17 to .38. Sensitivity .95 chose .42 to .48, and
# sensitivity .98 chose .13 to .16.
#
# Youden's threshold is partly chance. For the six networks together, other validation patients would have led
# to one between .19 and .46; by sensitivity .95 it would have been between .38 and .54. So accuracy by
# Youden's rule says less about a model than about where it happened to be cut. Sensitivity .95 is the
# steadier rule and the one to go by. That was seen on the folds before `two_sizes` was judged. But it was
# known by then, from earlier runs, that thresholds near .45 do better on test than low ones. The evaluation
# chapter of a run shows all three.
#
# At the threshold with sensitivity .95 on validation, the six networks of `two_sizes` have an accuracy of
# .915 to .939 on test, .924 on average, and the three ensembles .928. Their sensitivity on test is .97 to
# .98. Their specificity falls from about .97 to .81 to .89: networks call more normal films sick than on any
# fold. A threshold should therefore be chosen on films from where it will be used.
#
# Probabilities promise too much pneumonia for the same reason. The expected calibration error of `two_sizes`
# is .032 to .043. The intercept of the calibration is −.68 for the first network and −.72 for all six
# together. The temperature that the folds chose does not mend it.

# %% [markdown]
# ## Two sizes are not worth it
#
# On the folds the networks that see 96 pixels have an AUROC of .9945, weighted .9768 (mean over three seeds).
# Those that see 64 have .9926 and .9737, and the mean of both sizes .9940 and .9761: not better than 96
# pixels alone. On test the three are .9811, .9789 and .9811. The recipe has therefore lost its choice of
# several sizes. All 18 networks of `two_sizes` took 1 h 52 min, two at a time.

# %% [markdown]
# ## What the frame gives away
#
# Forests that see no lung tell pneumonia from normal (`pneumo run --data DIR --only data,eda`, seed 42, films
# of `chest_xray_224`):
#
# | what a forest sees | AUROC, films that are not test | AUROC, test films |
# | --- | --- | --- |
# | all but the chest | 0.975 (0.970–0.978) | 0.900 (0.871–0.923) |
# | outer frame | 0.973 (0.969–0.977) | 0.899 (0.869–0.922) |
# | four corners | 0.956 (0.950–0.962) | 0.849 (0.814–0.879) |
# | lower right corner | 0.937 (0.928–0.944) | 0.758 (0.713–0.798) |
# | height of the side marker | 0.735 (0.718–0.752) | 0.539 (0.494–0.583) |
# | for comparison: eight measures | 0.934 (0.927–0.941) | 0.869 (0.838–0.896) |
# | for comparison: bytes of the file | 0.869 (0.858–0.880) | 0.799 (0.756–0.836) |
# | for comparison: whole film | 0.986 (0.983–0.989) | 0.932 (0.909–0.950) |
#
# Networks use this. Two networks of 64 pixels, one for each fold, were trained without lent frames and two
# with them (one seed, 30 epochs, else as `two_sizes`). Plain AUROC on the folds does not notice: .9932
# without, .9921 with. But in the frame of a film of the other class the first two have an AUROC of .567, the
# others .975. So half of the films are now lent a frame. The frame-swapped examination chose that, not test.
#
# Three networks of that size, trained on all folds with lent frames, were then judged on test: .9807, .9803
# and .9800. They are the compact networks of `best`; trained again, they gave the same numbers. Lending
# frames at this size does not make test easier, and does not end the hold on the frame, as test films show
# when they are altered (run `best`, AUROC; intervals in the run's `metrics/shortcuts.csv`):
#
# | test films | EfficientNet, frozen | EfficientNet, fine-tuned | compact net | joint ensemble |
# | --- | --- | --- | --- | --- |
# | as they are | 0.958 | 0.982 | 0.981 | 0.986 |
# | text painted over | 0.961 | 0.983 | 0.981 | 0.986 |
# | markers painted over | 0.959 | 0.984 | 0.980 | 0.986 |
# | text pasted onto every film | 0.951 | 0.980 | 0.980 | 0.986 |
# | frame of the same class | 0.967 | 0.987 | 0.973 | 0.988 |
# | frame of the other class | 0.324 | 0.888 | 0.904 | 0.921 |
# | gray levels of the other class | 0.929 | 0.977 | 0.965 | 0.979 |
# | sharpness of the other class | 0.927 | 0.981 | 0.974 | 0.983 |
# | shape of the other class | 0.805 | 0.944 | 0.974 | 0.980 |
#
# A frozen trunk was lent no frames, and ranks most films by their frame. The others lose .07 to .10 where a
# frame of the same class costs little. Text and markers by themselves move next to nothing. Films of the
# transferred networks were stretched as the compact networks' were, and yet shape moves them more.

# %% [markdown]
# ## What photographs teach
#
# EfficientNet-Lite0 brings ImageNet's weights as a package. Frozen, with a linear head on its features of 160
# pixels, it has a test AUROC of .958 after 40 seconds. That is less than any compact network, and more than
# the study's own CNN (.930), which learned for an hour. At .5 its accuracy is .845.
#
# Fine-tuned by the recipe it is better than the compact networks in every examination, on the fold that both
# left out (mean of three seeds):
#
# | fold 0 | plain | viral | weighted | gray swapped | sharpness swapped | frame swapped | shape swapped |
# | --- | --- | --- | --- | --- | --- | --- | --- |
# | compact, 64 pixels | 0.9966 | 0.9937 | 0.9872 | 0.9916 | 0.9945 | 0.9783 | 0.9922 |
# | EfficientNet, 160 pixels | 0.9978 | 0.9960 | 0.9920 | 0.9963 | 0.9976 | 0.9881 | 0.9970 |
#
# On test its networks have .982, .985 and .982, and together .9855. Its learning rate of .002 is what was
# tried first; a lower one was not tried. Only one fold was left out, so its threshold rests on fewer films
# than the compact networks' does. With the compact networks the mean is .9860, which is not told from .9855.

# %% [markdown]
# ## How much of the error is shift?
#
# Five compact networks learned from patient-wise folds over all 5,856 films, test films included, by the
# recipe of `best` (`pneumo run --only shift`). Each film was judged by a network that did not know its
# patient, at thresholds that the other folds chose:
#
# | protocol | films | AUROC | accuracy | sensitivity | specificity | calibration slope | intercept |
# | --- | --- | --- | --- | --- | --- | --- | --- |
# | published | 624 test films | 0.981 (0.968–0.988) | 0.929 (0.907–0.949) | 0.977 | 0.850 | 1.03 | −0.43 |
# | exchangeable | the same | 0.986 (0.975–0.992) | 0.949 (0.928–0.967) | 0.979 | 0.897 | 1.07 | −0.18 |
# | exchangeable | all | 0.994 (0.992–0.995) | 0.957 (0.951–0.962) | 0.950 | 0.974 | 1.17 | 1.80 |
#
# As published, 7.1 % of the test films are called wrong, and 5.1 % by networks that know films of their time:
# 1.9 points less (.8 to 3.2, patients redrawn). So 27 % of the error is shift. The rest stays although such
# films are known. Why these films are harder than all others is not measured.
#
# Forests without lungs gain less. With test films dealt into the folds, the AUROC on them is .823 instead of
# .758 by the lower right corner, and .918 instead of .899 by the frame. By the bytes of the file and the
# marker's height it stays. On all other films corner and frame have .937 and .972.
#
# A network that learned from no patient with burnt-in text or a tall marker judges such films as well as
# those that knew others: AUROC .886 (.827–.927) and .873 (.806–.919), on 37 normal films and 545 with
# pneumonia. Intervals overlap widely. So it is not seen that learning from their like helps.

# %% [markdown]
# ## Films from elsewhere
#
# A detector made from a run (`pneumo bundle`) was tried on what it does not know. The run was one compact
# network of 64 pixels, one fold left out, 20 epochs. It has an AUROC of .978 on test.
#
# Does it notice films that it should not be asked about? Of the 5,232 films that are not test, each was
# judged by a reference that does not know its patient. Of every strange kind there were 1,500 films:

# %%
flags = pd.read_csv(assets/"strange_films.csv")   # written by `benchmarks/strange_films.py`
flags["flagged"] = [value_with_interval(row, "share", 3) for row in flags.to_dict("records")]
flags[["films", "number", "flagged"]].style.hide(axis="index")

# %% [markdown]
# Asked for were 5 % of films in order. On test 19 of 624 films are flagged: 8 of 234 normal ones, 11 of 390
# with pneumonia. Of these 19, 18 are called right. **A flag does not mark a wrong answer**; it marks a film
# that the answer was not made for. Hands and lateral chests are drawn, photographs are parts of two
# pictures.
#
# Conformal sets that shall hold the true class of 90 % of patients hold it where patients are exchangeable,
# and not on test. There, more than half of the normal children are missed (a run's
# `metrics/evaluation_sets.csv`, which the chapter on evaluation writes):
#
# | true class | 1,000 halves of the left-out films (standard error) | test | set empty on test |
# | --- | --- | --- | --- |
# | normal | .9002 (.0008) | .484 (.419–.548) | .359 |
# | pneumonia | .9012 (.0008) | .969 (.946–.988) | .023 |
#
# Leaving the doubtful films to a person helps: the surest half of the test films has .6 % wrong calls,
# three quarters have 1.3 %, all have 7.2 %. Answering only where a set holds one class does not help. It
# leaves out 15 % of the films and has 7.5 % wrong, since the sets were made for other films.
#
# ### How many films of your own you need
#
# Test films play another hospital. Some of them, patient by patient, recalibrate the detector; all others
# judge it. That was repeated 200 times (medians, and the middle 90 % of the repeats in brackets):

# %%
# written by `benchmarks/local_films.py`
found, shares = (pd.read_csv(assets/f"local_{name}.csv") for name in ("films", "shares"))
trial_table(found).style.hide(axis="index")

# %% [markdown]
# Without local films too much pneumonia is promised (intercept −.62), and specificity is .78. **About 100
# films are enough to gain more than chance takes away**: accuracy is .931, and lower than without them in
# 11.5 % of the repeats. With 200 films it is lower in 1 %, with 50 in 19 %, with 25 in 39 %. `pneumo
# recalibrate` would have refused all repeats with 25 films and 97.5 % of those with 50.

# %%
percent = {name: "{:.1%}" for name in shares if "intercept" not in name or "farther" in name}
shares.style.hide(axis="index").format(percent | {"size": "{:.0f}"}, precision=2)

# %% [markdown]
# The calibration error was hardly beyond chance before and stays so. A median intercept of 0 is not a mended
# one. Its typical distance from 0 is .62 before, .55 with 50 films, .37 with 100 and .26 with 200. The row
# without local films was judged on those that 25 leave. All repeats share the same 624 films, so other
# films would spread more.

# %%
png = show_figure(plot_trial(found), "findings_local",
                  "What local films bring; bars: the middle 90 % of 200 hospitals.",
                  "Calibration intercept, calibration error, accuracy and specificity on test films without "
                  "recalibration and with 25, 50, 100 and 200 local films; spreads narrow with more films.")

# %% [markdown]
# Two ways without labels were tried earlier. Estimating the prevalence alone (EM) gave .60, .36 and .32 where
# .625 was true. Batch normalisation's statistics taken from the new films changed the AUROC by .003 and
# accuracy by nothing. Nothing here is built on them.
#
# These numbers come from further looks at the test films: four for flags, two for sets and risk, four
# for the trial. Nothing was chosen by them.

# %% [markdown]
# ## Which maps to believe
#
# Two compact networks were trained at 64 pixels, each for 12 epochs on all folds but one, and answer
# together. Their maps were measured on test films that they call pneumonia and that are. The run looked at
# test three times and chose nothing by it. Its files `metrics/xai_faithfulness.csv`, `xai_networks.csv` and
# `xai_sanity.csv` lie in `nbs/assets` as `map_*.csv`. This makes such a run:
#
# ```sh
# pneumo run -f params/best.yaml --data FOLDER --only data,eda,compact,evaluation,xai --run maps \
#   -p compact.seeds=2 -p compact.refits=0 -p compact.only_folds=[0] -p compact.epochs=12 \
#   -p compact.precision=float32 -p xai.measured_films=60 -p xai.films_shown=2
# ```
#
# In the table ↑ means that more is better, ↓ that less is. Behind the interval stands the rank.

# %%
maps, sanity = (pd.read_csv(assets/f"map_{name}.csv") for name in ("measures", "sanity"))
main = ["mu_fidelity", "infidelity", "deletion", "deletion_mean", "insertion_mean"]
for verdict, methods in sanity.groupby("verdict").method:
    print(f"With new weights the map {verdict}: {in_list([METHODS[name].title for name in methods])}")
print(f"{maps.films.max()} films")
shown_faithfulness(maps[maps.measure.isin(main)])

# %% [markdown]
# **The order hangs on what stands in for the film.** Deletion into gray puts the two grainy methods first,
# and deletion into the mean of the train films puts them behind Grad-CAM and occlusion. A network has seen
# shapes like the mean's and no even gray, so the second counts more here. Mu-fidelity and infidelity
# disagree in the same way: they ask about blocks turned black and about squares.
#
# No method's maps outlive new weights, and the controls' do. None reaches a mu-fidelity near 1: a map
# explains a small part of what a network does. RISE is not told from the random map by deletion. Grad-CAM
# and HiResCAM have the same numbers, since these networks pool over the whole film.
#
# **Two trainings of one recipe look at different pixels, and at similar places**:

# %%
apart = pd.read_csv(assets/"map_networks.csv")
for row in apart.to_dict("records"):
    words = f"{row['correlation']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
    print(f"{METHODS[row['method']].title}: rank correlation between the two networks {words}")

# %% [markdown]
# So a coarse map of these networks may be read as a place; the grain of Integrated Gradients or SmoothGrad
# may not. Whether a place is the right one can be asked where the truth is known, on phantoms: the chapter
# on explanations does. No number here says that a place that a network uses is a sign of disease.

# %% [markdown]
# ## Why test is harder than validation
#
# The published test films are no random draw. In both series of normal films they are the lowest patient
# numbers, in the bacterial films one stretch near the beginning, in the viral ones both ends. So they were
# probably taken at another time than most train films. They look different, too. From eight measures of a
# whole film (gray levels, sharpness, traces of JPEG in these copies) a classifier tells test from train
# within a class. The same eight tell pneumonia from normal with AUROC .934 among the films that are not
# test, and .869 among the test films. A network that learns these things does well on a random validation
# set and worse on test. The chapter on exploration measures it.
#
# ### One group of films stands out
#
# In the order of the patient numbers most false alarms lie in one stretch of one series of normal films. Many
# of these films carry a tall R, burnt in as the marker of the right side. A strict detector finds a tall R on
# 422 of 3,883 films with pneumonia that are not test (10.9 %) and on 18 of 1,349 normal ones (1.3 %). On test
# it finds one on 55 of 390 (14.1 %) and on 15 of 234 (6.4 %). So among the films to learn from, films of this
# kind are nearly all sick, and on test much less so.
#
# At .5 the ensemble of `pixels96` calls 27 % of the 15 normal ones right, and 90 % of the other 219. Whether
# it is the letter, the look of the machine or the age and position of the children is not measured. The 18
# normal films with a tall R are a validation that feels it: few, but real. Among films with a tall R the
# folds' networks of `two_sizes` reach an AUROC of .942 (.887 to .982), among all .994.

# %% [markdown]
# ## What each ingredient of the recipe is worth
#
# The recipe has a chapter of its own, "A recipe for these films". It gives films the gray levels and the
# sharpness of others and stretches them. It shows the network local contrast in place of gray, and has it
# tell bacterial from viral pneumonia.
#
# Recipes are compared on films that are not test, by networks that knew no normal film of the naming series
# that they judge. They are compared on all of these films, on films weighted so that appearance says
# little, and on films with a tall R alone. Then gray levels, sharpness, or the shape of the film are
# swapped between the classes. Each row is one seed, so differences in the last digit may be chance. The
# column "shape swapped" was made with the reference study's gap of 1.2; since then runs apply the gap
# measured on their own films.
#
# <!-- ablation: written by `pneumo ablation RUN... --write FILE` -->
#
# | changed | folds | viral | weighted | tall marker | gray swapped | sharpness swapped | frame swapped | shape swapped | training |
# | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
# | the recipe | 0.9911 (0.988–0.994) | 0.9852 | 0.9631 | 0.930 (0.866–0.965) | 0.9776 | 0.9840 | 0.9449 | 0.9765 | 147 s |
# | frames 0 | 0.9926 (0.989–0.996) | 0.9884 | 0.9684 | 0.917 (0.823–0.963) | 0.9832 | 0.9867 | 0.4807 | 0.9832 | 156 s |
# | frames 0.8, frame_width 0.24 | 0.9857 (0.982–0.990) | 0.9752 | 0.9523 | 0.899 (0.822–0.945) | 0.9695 | 0.9757 | 0.9783 | 0.9523 | 204 s |
# | text_over 0.5 | 0.9913 (0.988–0.994) | 0.9855 | 0.9625 | 0.932 (0.869–0.966) | 0.9790 | 0.9850 | 0.9470 | 0.9772 | 153 s |
# | text_paste 0.5 | 0.9907 (0.987–0.995) | 0.9847 | 0.9616 | 0.916 (0.841–0.957) | 0.9779 | 0.9835 | 0.9409 | 0.9765 | 169 s |
# | frames 0, fade 0.12 | 0.9889 (0.985–0.993) | 0.9846 | 0.9654 | 0.948 (0.877–0.979) | 0.9864 | 0.9889 | 0.9141 | 0.9808 | 196 s |
# | frames 0, crop 0.1 | 0.9943 (0.994–0.995) | 0.9910 | 0.9733 | 0.953 (0.889–0.981) | 0.9849 | 0.9908 | 0.3190 | 0.9896 | 147 s |
#
# Networks of the stage compact: AUROC of 2 folds across the naming series, each judged by a network that
# did not see it, on average (in brackets the range): all films; viral against normal; films weighted so
# that appearance says little; films with a tall side marker (18 normal and 131 with pneumonia; in brackets
# 95 %, after DeLong); gray levels, sharpness, frame or shape of the film swapped between the classes. 10
# epochs at 64 pixels unless changed. No test film was asked. Commit fe537ff46d.
#
# <!-- end of ablation -->
#
# No film is lent a frame with `frames 0`. A wider frame is up to `frame_width` wide and lent to 8 films in
# 10. With `text_over`, half of the train films have their text and side markers painted over, or the places
# of another film's. With `text_paste`, half have another film's pasted on. With `fade` the outermost 12 %
# of every film, in training and after, fade to gray; with `crop` a tenth of each side is cut off. Only
# `frames` is in the recipe. A copy of the code that had the others made the table; the commit below it is
# that copy's.
#
# Without lent frames the networks read the frame: its number falls below .5. That is why half of the films
# are lent one. It costs one or two thousandths elsewhere after 10 epochs. A wider frame hides more, and
# costs more everywhere. Painting and pasting change nothing that could be seen. Fading helps with gray
# levels and sharpness, but what is left of a frame misleads more. Cutting raises most numbers, as more
# pixels do, since 64 pixels then show four fifths of a film's side. But what is left at the new edge
# misleads as much as the frame did.
#
# An earlier table, from before frames were lent, asks the same of the other ingredients:
#
# | changed | folds | viral | weighted | tall marker | gray swapped | sharpness swapped | shape swapped | training |
# | --- | --- | --- | --- | --- | --- | --- | --- | --- |
# | the recipe | 0.9926 (0.989–0.996) | 0.9884 | 0.9684 | 0.917 (0.846–0.975) | 0.9832 | 0.9867 | 0.9832 | 316 s |
# | bands 0 | 0.9923 (0.989–0.996) | 0.9882 | 0.9670 | 0.913 (0.833–0.970) | 0.9856 | 0.9790 | 0.9825 | 369 s |
# | match 0 | 0.9927 (0.989–0.997) | 0.9900 | 0.9612 | 0.876 (0.789–0.949) | 0.9316 | 0.9906 | 0.9860 | 178 s |
# | contrast film | 0.9896 (0.986–0.993) | 0.9838 | 0.9633 | 0.945 (0.892–0.983) | 0.9798 | 0.9818 | 0.9727 | 276 s |
# | kinds False | 0.9913 (0.988–0.995) | 0.9861 | 0.9649 | 0.910 (0.834–0.968) | 0.9822 | 0.9857 | 0.9820 | 281 s |
# | rotation 7, shift 0.04, stretch 0.1, cutout 0 | 0.9949 (0.993–0.997) | 0.9921 | 0.9795 | 0.953 (0.905–0.986) | 0.9899 | 0.9914 | 0.9664 | 193 s |
# | image_size 96 | 0.9936 (0.991–0.996) | 0.9894 | 0.9740 | 0.920 (0.850–0.973) | 0.9823 | 0.9889 | 0.9878 | 754 s |
#
# Less turning and stretching raises every number of the folds but the one in which shape is swapped.
# Without `match`, swapped gray levels mislead most, and films with a tall R are told apart worst. Telling
# the kinds apart and local contrast help, the latter not among films with a tall R. `bands` helps where
# sharpness is swapped, which it trains for, and is not seen to help elsewhere. More pixels raise most
# numbers.
#
# `pixels96` was settled by single trials of 30 epochs on the folds. In them more pixels and `bands` raised
# most of these numbers a little. Trained again as a run they came out lower, so part of that was chance.
# Three other things were tried there and not worth it: averaging the weights over the last epochs, twice the
# epochs, and learning without the pneumonia films with a tall R. On test none of it is seen. There the AUROC
# is .980 for single networks and .981 for ensembles, with `pixels64` and `pixels96` alike, and .979 to .981
# with `two_sizes`.

# %% [markdown]
# ## What test had a say in
#
# An earlier recipe, chosen on folds along the patient numbers, had a test AUROC of .980 for single networks
# on average and .981 for nine together. Its threshold was .22, and so its accuracy .880 and .895. On the
# folds across the series less stretching (40 epochs, `pixels64` 30) looked better in three of the four
# numbers; weighted, for example, .977 instead of .972. It was worse only where shape is swapped, .986 instead
# of .992, and equal in their mean (.9875 and .9868).
#
# That recipe, run `less_stretch`, was trained and judged on test first: AUROC .973, accuracy .895. It leans
# on the shape of the chest, which squashing made a sign of the class, and test does not keep that sign as
# train does. The tie was then broken the other way, back to the stretching of the earlier recipe. So **test
# had a say between these two**. It was known from test as well that folds along the numbers choose too low a
# threshold. What is learned: a number in which a known shortcut is swapped should not be averaged away by
# others that it can flatter.
#
# Then the false alarms of `pixels64` on test were looked at. They suggested the examination on films with a
# tall R, and evening out sharpness. The folds alone chose what `pixels96` and `two_sizes` are, but among
# things that **test had suggested**. The numbers of `pixels64`, `pixels96` and `two_sizes` are therefore
# kinder than a first look would have given. No run of this recipe is free of test. `less_stretch` comes
# nearest, after seven looks, with folds whose threshold test had already shown to be too low.

# %% [markdown]
# ## Speed
#
# `make bench` runs this project and the reference study's own way in turn, and writes this table. The study's
# way is Keras's `ImageDataGenerator` reading JPEGs, `fit` on it, and one `predict` for each occlusion patch.
# It runs on phantoms, or with `DATA=DIR` on other films.
#
# <!-- benchmark: written by `make bench WRITE=FILE` -->
#
# | what | this project | the study's way | ratio | goal |
# | --- | --- | --- | --- | --- |
# | augmented input, films/s | 10,732 (10,254–11,210) | 191 (179–203) | 56.2x | 20x |
# | training, MLP, films/s | 707 (700–714) | 113 (110–116) | 6.3x | 5x |
# | training, CNN, films/s | 55.8 (55.7–56.0) | 42.8 (42.5–43.1) | 1.30x | 1.4x |
# | ResNet50 frozen, 20 epochs, s | 283 (280–286) | 2,935 (2,930–2,941) | 10.4x | 10x |
# | ResNet50 fine-tuned, 10 epochs, s | 607 (606–608) | 1,840 (1,783–1,898) | 3.0x | 3x |
# | occlusion map, MLP, s | 0.17 (0.16–0.18) | 25.1 (25.0–25.3) | 146x | 50x |
# | occlusion map, CNN, s | 0.52 (0.52–0.52) | 26.2 (26.0–26.3) | 50.3x | 10x |
# | occlusion map, ResNet50, s | 11.4 (11.3–11.4) | 37.9 (36.9–38.8) | 3.3x | 2x |
# | decoded films, second run, s | 0.01 (0.01–0.01) |  |  | decodes nothing |
# | import pneumo_nb, s | 0.03 (0.03–0.03) |  |  | 0.3 s |
# | pneumo --help, s | 0.08 (0.07–0.08) |  |  | 1 s |
#
# Medians, lowest and highest of 2 runs in turn at 224 pixels on chest_xray_224 (5,856 films); 2 cores, 415
# GFLOP/s in a large product and 484 in a large convolution; commit fb28c15fd1. Speed of training with its
# input, as a share of that on films already in memory: MLP 83%; CNN 99%. Training the CNN does 256 GFLOP/s,
# 53% of the large convolution's. Its layers one by one, forward and backward, take 0.60 s a batch: Conv2D
# 61%, GrayConvolution 26%, MaxPooling2D 5%, Dense 5%, FusedBatchNormalization 3%; its convolutions, from
# first to last, do 54, 303, 392, 426 GFLOP/s.
#
# <!-- end of benchmark -->
#
# The rates of training are of whole steps, input and all. The CNN gains least, and less than its goal. It
# already trains as fast as on films in memory, so no input could make it faster. What is left are
# convolutions that do what the machine's routines for them do. ResNet50's rows are multiplied up to the
# study's 4,183 train and 1,049 validation films, and the frozen row bears the pass through the trunk that
# both use. `benchmarks/phantoms.json` holds the same on phantoms.

# %% [markdown]
# ## When the set grows
#
# What becomes of time and memory with more and more films (`make growth`):
#
# <!-- growth: written by `make growth WRITE=FILE` -->
#
# | part | 5,000 films | 20,000 films | 100,000 films | a million |
# | --- | --- | --- | --- | --- |
# | input pipeline | 0.3 s, 985 MB | 1.3 s, 998 MB | 5.3 s, 1,054 MB | 0.01 h |
# | feature cache | 10.9 s, 1,032 MB | 38.0 s, 1,046 MB | 184.2 s, 1,103 MB | 0.51 h |
# | prediction | 0.7 s, 1,022 MB | 2.3 s, 1,038 MB | 10.3 s, 1,106 MB | 0.03 h |
# | evaluation | 0.9 s, 1,024 MB | 2.0 s, 1,041 MB | 14.5 s, 1,109 MB | 0.04 h |
#
# One epoch of input at 224 pixels over half of the films; features by ResNet50 and prediction by the CNN at
# 32 pixels; evaluation of half of the films with intervals. Resident memory after each part; 2 cores, commit
# c66ef1f1a8. The last column goes on along the line through the last two sizes.
#
# <!-- end of growth -->
#
# The evaluation's row is of an earlier one, which drew patients 500 times for one measure. It now draws 1,000
# times for twelve, and this has not been measured again.
