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
# # What photographs teach
#
# > EfficientNet-Lite0 with ImageNet's weights: frozen under a linear head, then fine-tuned by the recipe

# %%
#| default_exp transfer

# %%
#| export
import keras
from keras import layers

from pneumo_nb.pretrained import pretrained_trunk

# %%
#| hide
from IPython.display import Markdown, display
from pneumo_nb.run import finish, note, open_stage, set_seed
from pneumo_nb.style import plot_style
from pneumo_nb.views import AUGMENTATION
from pneumo_nb.batches import feature_source, film_source
from pneumo_nb.training import compile_model, keep_model, show_history, show_network, train_model
from pneumo_nb.training import training_findings
from pneumo_nb.members import (
    examine_members, keep_members, make_plan, saved_differ, show_losses, shown_examinations,
    train_members, train_side_by_side)
from pneumo_nb.preprocessing import load_films
from pneumo_nb.eda import load_appearance
plot_style()

# %% tags=["parameters"]
run_dir = ""           # the run directory; "" for a temporary one
seed = 42              # of the head and the first network; the others count on from it
weights = "imagenet"   # of the trunk, from a package; or "none": random ones
# the head alone, on a frozen trunk
head_epochs = 20       # at most
head_learning_rate = 1e-3
# members, as for the compact recipe
folds_by = "series"    # leaves out a naming series of the normal films; or "numbers": a stretch of numbers
folds = 2              # how many, if by numbers
only_folds = []        # folds to leave out in turn, counted from 0; [] for all that have normal films
refits = 1             # networks that learn from all folds and judge test; 0: those of the folds judge test
seeds = 1              # how often all of that is done, with other initial weights of the last layer
# optimiser
batch_size = 32
epochs = 2
learning_rate = 5e-4   # at its highest
weight_decay = 0.05
label_smoothing = 0.05
average = 0.9          # of the weights so far that stays in their mean at each step; 0: the last weights
# network
image_size = 64        # side of the films, pixels; at least 32
kinds = True           # tell bacterial from viral pneumonia while learning; False: two classes
# augmentation; its other ingredients are as the recipe has them
frames = 0.5           # share of films that get the frame of another film, of whatever class
flip = True            # mirror left and right in training and, averaged, in prediction

# %%
#| export
RANGES = {
    "weights": ["imagenet", "none"],
    "head_epochs": "whole number from 1 to 10000",
    "head_learning_rate": "number above 0 and up to 1",
    "image_size": "whole number from 32 to 1024",
}

# %%
#| export
STAGE = {
    "reads": ["images.csv", "metrics/data.json", "appearance.csv"],
    "writes": ["members/transfer.csv", "metrics/transfer.json"],
    "models": {
        "transfer_frozen": {"title": "EfficientNet, frozen", "colour": "#F0B0A0", "dash": "--"},
        "transfer": {"title": "EfficientNet, fine-tuned", "colour": "#D55E00", "dash": (0, (4, 1))},
        "transfer_ensemble": {"title": "EfficientNet ensemble", "colour": "#8C3D00", "dash": "-"}},
    "card": ["transfer_history"],
    "methods": """<p>EfficientNet-Lite0 takes films of {{ p.image_size }} pixels a side and begins with
        {% if p.weights == "imagenet" %}weights learned on ImageNet{% else %}random weights{% endif %}. First
        a linear head was trained on its frozen features, without augmentation. Then the whole network was
        trained for {{ p.epochs }} epochs with the augmentation of the recipe for these films, and with its
        folds and examinations; batch normalisation kept the statistics that it came with.
        {% if p.average %}Weights are averaged along the way.{% endif %}</p>""",
    "data_remark": "Networks of the recipe divide the films of train and validation anew, into folds.",
    "remark": "{% if p.weights == 'none' %}random weights{% endif %}",
    "caution": """{% if p.weights == "none" %}<strong>EfficientNet began with random weights here</strong>,
        not with those learned on photographs. Its rows say nothing about transfer learning.{% endif %}""",
    "examinations": "metrics/transfer.json",
    "ranges_of": "members",
}

# %% [markdown]
# Does what a network learned from photographs serve radiographs? The chapter on ResNet50 asks the same, but
# needs a download for it. The weights of EfficientNet-Lite0 come with a package (chapter on the pretrained
# trunk), so here the question has an answer in every run.
#
# It is asked twice. First the trunk stays as it is: each film is turned into 1,280 features, and a linear
# head learns from these. That takes one pass through the films and seconds of training. Then the whole
# network is trained by the recipe of the compact networks, members, folds and examinations included.

# %%
members = dict(folds_by=folds_by, folds=folds, only_folds=only_folds, refits=refits, seeds=seeds)
optimiser = dict(batch_size=batch_size, epochs=epochs, learning_rate=learning_rate, weight_decay=weight_decay,
                 label_smoothing=label_smoothing, average=average)
stage = open_stage("transfer", run_dir, seed=seed, weights=weights, head_epochs=head_epochs,
                   head_learning_rate=head_learning_rate, image_size=image_size, kinds=kinds, frames=frames,
                   flip=flip, **members, **optimiser)
if weights == "none": note(stage, 'weights is "none": the trunk is random, so nothing is transferred.')
films = load_films(stage, image_size, seed)
print(f"{len(films.pixels):,} films of {films.size} × {films.size} pixels")


# %% [markdown]
# ## Frozen
#
# The features of a film do not change while the trunk is frozen, so they are computed once and kept in the
# cache. The head is one layer: a weight for each feature. Films are not augmented here.

# %%
#| export
def frozen_network(
    trunk: keras.Model, # from `pretrained_trunk`
) -> tuple[keras.Model, keras.Model]: # film → probability of pneumonia, and features → probability
    "The trunk with a linear head, and the head alone."
    trunk.trainable = False
    head = layers.Dense(1, activation="sigmoid", name="pneumonia")
    features = keras.Input(trunk.output_shape[1:], name="features")
    whole = keras.Model(trunk.input, head(trunk(trunk.input, training=False)), name="transfer_frozen")
    return whole, keras.Model(features, head(features), name="transfer_frozen")


# %%
set_seed(seed)
trunk = pretrained_trunk(image_size, weights)
whole, head = frozen_network(trunk)
as_they_are = film_source(films, seed, dict.fromkeys(AUGMENTATION, 0), views=1)
features, seconds = feature_source(as_they_are, trunk, 1)
print(f"Features of {len(films.pixels):,} films, {features.shape[0]:,} each, took {seconds:,.1f} s when they "
      "were made.")

# %%
compile_model(head, head_learning_rate)
history = train_model(stage, "transfer_frozen", head, features, head_epochs, batch_size, seed, seconds)
keep_model(stage, "transfer_frozen", head, features, history, saved=whole)
display(Markdown(training_findings("transfer_frozen", whole, history, head_epochs)))

# %% [markdown]
# [The curves](#fig-transfer_frozen_history) are those of the head.

# %%
show_history(stage, "transfer_frozen", history)


# %% [markdown]
# ## Fine-tuned by the recipe
#
# Now every weight of the trunk may change. Its batch normalisation stays in inference mode: it keeps the
# statistics that it came with, as in the chapter on ResNet50. The last layer is new and has an output for
# each kind of film.

# %%
#| export
def build_transfer(
    params: dict, # of the stage: image_size, weights
    classes: int,
    train: bool,  # not looked at: the layers are the same in training
) -> keras.Model: # (N, S, S, 1) gray → (N, classes) logits
    "The pretrained trunk with a new last layer."
    trunk = pretrained_trunk(params["image_size"], params["weights"])
    film = keras.Input(trunk.input_shape[1:], name="film")
    x = layers.Dropout(.2)(trunk(film, training=False))
    return keras.Model(film, layers.Dense(classes, name="logits")(x))


# %%
plan = make_plan(stage, films)
train_side_by_side(stage, load_films, plan, build_transfer)
networks, answers, histories = train_members(stage, films, plan, build_transfer)
print(f"{len(networks)} networks of {histories.parameters.iloc[0]:,} parameters, {len(answers):,} answers")

# %% [markdown]
# [The network](#fig-transfer_network), from the film above to the answer below, is mostly the trunk.

# %%
show_network(stage, next(iter(networks.values())))

# %% [markdown]
# [The curves](#fig-transfer_history) hold every member; those that learn from all folds have no dashed one.

# %%
show_losses(stage, histories)

# %%
temperatures = keep_members(stage, films, plan, networks, answers, histories)
assert saved_differ(stage, films, stage.name) < 1e-4
temperatures.style.hide(axis="index").format(precision=3)

# %% [markdown]
# The same examinations as for the compact networks (chapter on members), on the folds that a network left
# out:

# %%
looks = load_appearance(stage, films.images, seed)
table, findings = examine_members(stage, films, networks, answers, histories, looks)
caption = "AUROC of each member on the fold it never saw, by examination"
shown_examinations(table).style.set_caption(caption)

# %% [markdown]
# ## What it comes to

# %%
display(Markdown(findings))
record = finish(stage)
