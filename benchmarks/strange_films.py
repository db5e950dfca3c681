"""Which films a reference flags that does not know their patient: those in order, and strange ones.

With --test MODEL also the test films, and whether MODEL calls those with a flag right. That is a look."""
import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from pneumo_nb.run import read_json, write_csv
from pneumo_nb.cache import decode_films
from pneumo_nb.doubt import false_flags, fit_reference, share_interval, strange_films, unlikeness

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("run", type=Path, help="folder of a run")
parser.add_argument("size", type=int)
parser.add_argument("--strange", type=int, default=1500, help="films of each strange kind")
parser.add_argument("--test", metavar="MODEL")
parser.add_argument("--write", type=Path)

def row(what, flagged, patients) -> dict:
    named = zip(("share", "share_low", "share_high"), share_interval(flagged, patients))
    return dict(films=what, number=len(flagged)) | dict(named)

def by_class(images, flagged, where) -> list[dict]:
    "All films, and those of each class."
    groups = {"all": images.label >= 0, "normal": images.label == 0, "pneumonia": images.label == 1}
    return [row(f"{where}, {name}", flagged[of], images.patient_id[of]) for name, of in groups.items()]

def test_rows(run, model, images, flagged) -> list[dict]:
    "Test films, and whether those with and without a flag are called right at .5."
    table = pd.read_csv(run/f"predictions/{model}.csv").set_index("path").loc[images.path]
    right = ((table.probability >= .5) == (table.label == 1)).to_numpy()
    groups = ("flagged", flagged), ("not flagged", ~flagged)
    return by_class(images, flagged, "test") + [
        row(f"test, {name}: called right", right[of], images.patient_id[of]) for name, of in groups]

def strange_rows(images, pixels, count, folds=5) -> list[dict]:
    "Strange films of patients that the reference does not know, an equal number from each fold."
    codes, names = pd.factorize(images.patient_id)
    fold = np.random.default_rng(1).permutation(np.arange(len(names)) % folds)[codes]
    flagged, patients = {}, []
    for n in range(folds):
        reference = fit_reference(pixels[fold != n], codes[fold != n])
        chosen = np.random.default_rng(n).choice(np.flatnonzero(fold == n), count // folds, replace=False)
        patients.append(codes[chosen])
        for kind, some in strange_films(pixels[chosen], n).items():
            flagged.setdefault(kind, []).append(unlikeness(reference, some) > reference.threshold)
    return [row(kind, np.concatenate(parts), np.concatenate(patients)) for kind, parts in flagged.items()]

if __name__ == "__main__":
    asked = parser.parse_args()
    images = pd.read_csv(asked.run/"images.csv", dtype=dict(patient_id=str), keep_default_na=False)
    images.attrs["root"] = str(asked.run/read_json(asked.run/"metrics/data.json")["root"])
    pixels = np.asarray(decode_films(images, asked.size).pixels)
    is_test = (images.split == "test").to_numpy()
    known, test = (images[of].reset_index(drop=True) for of in (~is_test, is_test))
    rows = by_class(known, false_flags(pixels[~is_test], known.patient_id), "in order")
    rows += strange_rows(known, pixels[~is_test], asked.strange)
    if asked.test:
        reference = fit_reference(pixels[~is_test], known.patient_id)
        flagged = unlikeness(reference, pixels[is_test]) > reference.threshold
        rows += test_rows(asked.run, asked.test, test, flagged)
    found = pd.DataFrame(rows).round(5)
    print(found.to_string(index=False))
    if asked.write: write_csv(asked.write, found)
