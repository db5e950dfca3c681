"""Measures of maps where the right answer is known: linear models, noise, forgetting, and planted text."""
import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import layers as L

from pneumo_nb.cache import squash, take
from pneumo_nb.explanation import METHODS, explain, with_random_weights
from pneumo_nb.faithfulness import (
    agreement, audit_sentence, burnt_in_regions, chance_localisation, deletion, faithfulness_table,
    fill_films, infidelity, insertion, interval_of, lesion_groups, localisation, localisation_table,
    max_sensitivity, measure_methods, mu_fidelity, perturbation_curves, randomisation, region_audit, sanity,
    sanity_verdict, shuffled_labels, structural_similarity, use_sentence, weight_share)
from pneumo_nb.phantom import draw_anatomy, draw_film
from pneumo_nb.run import StudyError, rng_for

SHAPE = (8, 9)

def linear(weights, activation="sigmoid"):
    made = keras.Sequential([keras.Input((*weights.shape, 1)), L.Flatten(), L.Dense(1, activation)])
    made.layers[-1].set_weights([weights.reshape(-1, 1), np.full(1, .3)])
    return made

def random_films(shape=SHAPE, count=3, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (count, *shape)).astype(np.float32)

def convolutional(side=16, filters=4):
    return keras.Sequential([
        keras.Input((side, side, 1)), L.Rescaling(1 / 255), L.Conv2D(filters, 3, activation="relu"),
        L.BatchNormalization(), L.MaxPooling2D(), L.Conv2D(filters, 3, activation="relu"), L.Flatten(),
        L.Dense(1, "sigmoid")])

# ---- removing and bringing back

additive = linear(np.zeros(SHAPE, np.float32))   # its weights are set in each example
numbers = st.integers(0, 2 ** 31)

@settings(max_examples=40, deadline=None)
@given(numbers, numbers, st.sampled_from([1, 7, 16, 72]), st.sampled_from([0., 127.5, "mean"]))
def test_no_order_removes_faster_than_the_true_one_on_an_additive_model(seed, other, steps, fill):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=SHAPE) / 500
    additive.layers[-1].set_weights([weights.reshape(-1, 1).astype(np.float32), np.zeros(1)])
    films = rng.uniform(0, 255, (2, *SHAPE)).astype(np.float32)
    true = weights * (films - fill_films(films, fill))
    wrong = np.random.default_rng(other).normal(size=films.shape)
    own = dict(steps=steps, fill=fill)
    assert (deletion(additive, films, true, **own) <= deletion(additive, films, wrong, **own) + 1e-6).all()
    assert (insertion(additive, films, true, **own) >= insertion(additive, films, wrong, **own) - 1e-6).all()

def test_areas_follow_the_definition():
    "Pixel by pixel, by hand."
    rng = np.random.default_rng(1)
    weights, films, maps = rng.normal(size=SHAPE) / 400, random_films(), rng.normal(size=(3, *SHAPE))
    model, area = linear(weights.astype(np.float32)), []
    for film, change in zip(films, maps):
        film, answers = film.copy(), [model.predict(film[None, ..., None], verbose=0)[0, 0]]
        for pixel in np.argsort(-change.ravel()):
            film.ravel()[pixel] = 127.5
            answers.append(model.predict_on_batch(film[None, ..., None])[0, 0])
        area.append(np.trapezoid(answers, dx=1 / film.size))
    np.testing.assert_allclose(deletion(model, films, maps, steps=films[0].size), area, rtol=0, atol=1e-6)

@pytest.mark.parametrize("insert", [False, True])
def test_curves_begin_and_end_with_the_whole_film_or_none(insert):
    model, films = convolutional(), random_films((16, 16))
    shares, answers = perturbation_curves(model, films, films, insert, steps=5, block=3, fill="blurred")
    whole, none = (model.predict(x[..., None], verbose=0)[:, 0]
                   for x in (films, fill_films(films, "blurred")))
    np.testing.assert_allclose(shares, np.linspace(0, 1, 6), atol=.003)
    np.testing.assert_allclose(answers[:, [0, -1]].T, [none, whole] if insert else [whole, none], atol=1e-6)

def test_a_map_without_any_order_is_not_removed_from_its_upper_edge():
    weights = np.zeros(SHAPE, np.float32)
    weights[:4] = .0005
    model, films = linear(weights), np.full((1, *SHAPE), 200, np.float32)
    areas = [deletion(model, films, films * 0, seed=seed)[0] for seed in range(12)]
    above, below = (deletion(model, films, sign * weights[None])[0] for sign in (1, -1))
    assert np.ptp(areas) > 0 and np.mean(areas) == pytest.approx((above + below) / 2, abs=(below - above) / 8)

# ---- what removing does, foretold

@pytest.mark.parametrize("activation", ["sigmoid", None])
@pytest.mark.parametrize("block", [1, 3, 4])
def test_exact_shares_of_a_linear_model_foretell_all(activation, block):
    weights = (np.random.default_rng(2).normal(size=(11, 13)) / 500).astype(np.float32)
    model, films = linear(weights, activation), random_films((11, 13))
    np.testing.assert_allclose(mu_fidelity(model, films, weights * films, block=block), 1, atol=1e-4)
    np.testing.assert_allclose(infidelity(model, films, 7 * weights * films), 0, atol=1e-4)
    gray = weights * (films - 127.5)
    np.testing.assert_allclose(mu_fidelity(model, films, gray, fill="gray", block=block), 1, atol=1e-4)
    noise = np.random.default_rng(3).normal(size=(40, 11, 13))
    forty = np.repeat(films[:1], 40, axis=0)
    assert abs(mu_fidelity(model, forty, noise, block=block).mean()) < .15

def test_half_precision_batch_of_one_and_no_film():
    keras.config.set_dtype_policy("mixed_float16")
    try: model = convolutional()
    finally: keras.config.set_dtype_policy("float32")
    film = random_films((16, 16), 1)
    for measure in (deletion, insertion, mu_fidelity, infidelity):
        assert np.isfinite(measure(model, film, film)).all()
        assert measure(model, film[:0], film[:0]).shape == (0,)

@pytest.mark.parametrize("measure", [deletion, insertion, mu_fidelity, infidelity])
def test_what_is_no_map_of_the_films_is_refused(measure):
    model, films = linear(np.ones(SHAPE, np.float32) / 9000), random_films()
    for maps, says in ((films[:1], "a map for each film"), (films * np.nan, "finite maps")):
        with pytest.raises(StudyError, match=says): measure(model, films, maps)
    with pytest.raises(StudyError, match="found 'white'"): measure(model, films, films, fill="white")

def test_noise_that_nobody_sees_moves_no_map_of_a_linear_model_by_more_than_itself():
    model, films = linear(np.ones((16, 16), np.float32) / 9000), random_films((16, 16)) / 2 + 100
    assert (max_sensitivity(model, films, "integrated_gradients") < .03).all()
    assert (max_sensitivity(model, films, "random_map") > .5).all()

# ---- sanity

def forked():
    "Two networks inside one, side by side, as in an ensemble."
    film, inside = keras.Input((16, 16, 1)), lambda: keras.Sequential([
        keras.Input((16, 16, 1)), L.Conv2D(3, 3, activation="relu"), L.BatchNormalization(), L.Flatten(),
        L.Dense(1)])
    return keras.Model(film, L.Dense(1, "sigmoid")(L.Average()([inside()(film) for _ in range(2)])))

@pytest.mark.parametrize("build, rows", [(convolutional, 2), (forked, 3)])
def test_forgetting_leaves_the_model_as_it_is_and_ends_with_nothing_left(build, rows):
    "Nested and branching networks as well."
    model = build()
    films = random_films(model.input_shape[1:3], 2)
    before, answer = [w.copy() for w in model.get_weights()], explain(model, films, "gradcam")
    table = randomisation(model, films, "gradcam", rows=rows)
    assert list(table) == ["layer", "correlation", "ssim"] and len(table) == rows
    assert np.isfinite(table[["correlation", "ssim"]]).all(axis=None) and table.layer.is_unique
    for a, b in zip(before, model.get_weights()): np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(answer, explain(model, films, "gradcam"))
    last = explain(with_random_weights(model, 42), films, "gradcam")
    assert table.ssim.iloc[-1] == pytest.approx(structural_similarity(answer, last).mean(), abs=1e-4)

def test_controls_are_named_as_not_looking_at_the_network():
    controls = [name for name, method in METHODS.items() if method.is_control]
    curves, verdicts = sanity(convolutional(), random_films((16, 16), 4), controls, rows=2)
    assert len(controls) == 2 and (verdicts.verdict == "hardly changes").all()
    np.testing.assert_allclose(curves[["correlation", "ssim"]], 1)

def test_a_network_without_weights_cannot_forget():
    model = keras.Sequential([keras.Input((16, 16, 1)), L.Rescaling(1 / 255), L.GlobalAveragePooling2D()])
    with pytest.raises(StudyError, match="layers with weights, found none"):
        randomisation(model, random_films((16, 16)), "edge_map")

def test_shuffled_labels_leave_only_what_ignores_the_network():
    pixels, labels = random_films((16, 16), 40), np.arange(40) % 2
    pixels[labels == 1, 4:8, 4:8] = 255
    table = shuffled_labels(convolutional, pixels, labels, pixels[:4], ["occlusion", "edge_map"],
                            dict(occlusion=dict(patch_size=8, stride=4)), epochs=4).set_index("method")
    assert table.correlation["edge_map"] == pytest.approx(1) and table.correlation["occlusion"] < .95

# ---- on the disease

@pytest.fixture(scope="module")
def phantoms():
    "Sick phantoms of 48 pixels with their lesions."
    drawn = [draw_film(draw_anatomy(rng_for(n, "sick")), kind, rng_for(n, "sick", 1), 96)
             for n in range(30) for kind in ("bacteria", "virus")]
    films, masks = (np.stack([squash(part[n].astype(np.uint8), 48) for part in drawn]) for n in range(2))
    return films, masks > 0

def test_noise_scores_at_chance_and_the_truth_scores_all(phantoms):
    _, masks = phantoms
    many = np.repeat(masks, 10, axis=0)
    noise = localisation(np.random.default_rng(1).normal(size=many.shape), many).mean()
    np.testing.assert_allclose(noise, chance_localisation(many).mean(), atol=.03)
    np.testing.assert_allclose(localisation(masks.astype(float), masks), 1)
    assert not localisation(-masks.astype(float), masks)[["hit", "share", "iou"]].any(axis=None)

def test_random_weights_score_at_chance(phantoms):
    """The plain derivative of a linear network is its weights, so random ones hit by area alone.

    The mean over draws is within four of its standard errors, which chance leaves once in 16,000 times."""
    films, masks = phantoms[0][:20], phantoms[1][:20]
    model, scores = linear(np.zeros((48, 48), np.float32)), []
    for seed in range(200):
        weights = np.random.default_rng(seed).normal(size=(48 * 48, 1)) / 5000
        model.layers[-1].set_weights([weights, np.zeros(1)])
        maps = explain(model, films[:1], "smoothgrad", samples=1, times_input=False)   # the same for all
        scores.append(localisation(np.repeat(maps, 20, axis=0), masks).mean())
    scores, chance = pd.DataFrame(scores), chance_localisation(masks).mean()
    assert (np.abs(scores.mean() - chance) < 4 * scores.std() / 200 ** .5).all()
    assert (np.abs(scores.mean() - chance)[["share", "iou"]] < .004).all()

# ---- all of it

def test_the_table_ranks_the_network_that_is_explained_above_the_controls(phantoms):
    films, masks = phantoms
    weights = masks.mean(axis=0) - masks.mean()
    model, few = linear((weights / 400).astype(np.float32)), slice(0, 12)
    methods = ["integrated_gradients", "random_map", "edge_map"]
    own = dict(integrated_gradients=dict(steps=4))
    asked = dict(settings=own, masks=masks[few], samples=32, mean=films.mean(axis=0))
    values, maps = measure_methods(model, films[few], methods, **asked)
    again, _ = measure_methods(model, films[few], methods, **asked)
    pd.testing.assert_frame_equal(values, again)   # same seed, same bytes
    patients = np.arange(12) // 2
    table = faithfulness_table(values, patients)
    mu = table[table.measure == "mu_fidelity"].set_index("method")
    assert mu.value["integrated_gradients"] > .99 and mu["rank"].iloc[0] == 1 < mu["rank"].iloc[1:].min()
    assert {"deletion_mean", "insertion_mean", "hit"} <= set(table.measure)
    assert (table.low <= table.value + 1e-9).all() and (table.value <= table.high + 1e-9).all()
    groups = lesion_groups(masks[few], ["bacteria", "virus"] * 6)
    places = localisation_table(values, masks[few], groups, patients)
    assert set(places.group) == {"all", "bacteria", "virus", "small", "large"} and len(places) == 3 * 5 * 3
    verdicts = pd.DataFrame(dict(method=methods, verdict="hardly changes"))
    assert "not to be believed: maps of Integrated Gradients (hardly change " in use_sentence(table, verdicts)
    assert use_sentence(table, verdicts.assign(verdict="changes"), places[:0]).startswith(
        "Of this run's maps, maps of Integrated Gradients may be used")
    pairs = agreement(maps, patients)
    assert len(pairs) == 3 and pairs.correlation.between(-1, 1).all()

def test_verdicts_follow_the_rule():
    apart, steady = np.linspace(0, .2, 21), np.full(5, .9)
    words = [sanity_verdict(after, apart, steady)["verdict"] for after in (.1, .3, .6)]
    assert words == ["changes", "changes in part", "hardly changes"]
    always = np.full(10, .98)   # the same blob on every film, whatever the network
    for after in (.92, .98): assert sanity_verdict(after, always, always + .01)["verdict"] == "hardly changes"
    unsteady = np.linspace(-.1, .1, 10)   # what tiny noise moves as much as another film does
    assert sanity_verdict(.02, unsteady, unsteady)["verdict"] == "changes"
    assert sanity_verdict(1., unsteady, unsteady)["verdict"] == "hardly changes"

# ---- a planted shortcut

@pytest.mark.parametrize("method, own", [("smoothgrad", dict(samples=4)), ("rise", dict(masks=200)),
                                         ("occlusion", dict(patch_size=8, stride=4))])
def test_maps_of_a_network_that_reads_text_point_at_the_text(planted, corner_reader, method, own):
    films, places = planted
    rows = films.rows("test")
    text = burnt_in_regions(films.images.path.iloc[rows], places[places.kind == "text"], films.size)
    rows, text = rows[text.any(axis=(1, 2))], text[text.any(axis=(1, 2))]
    patients, pixels = films.images.patient_id.to_numpy()[rows], take(films.pixels, rows)
    audit = region_audit(explain(corner_reader, pixels, method, **own), text, patients)
    assert audit["ratio"] > 2 and " point at text" in audit_sentence(audit, method, "text")
    flat = region_audit(np.ones(text.shape), text, patients)
    assert flat["ratio"] == pytest.approx(1) and "do not single out" in audit_sentence(flat, method, "text")
    assert weight_share(text, text) == pytest.approx(1)
