"""How often 95 % intervals of the AUROC hold the truth: `python benchmarks/coverage.py`.

Scores are drawn with a known AUROC. Each patient has three films, whose scores correlate by .9. Two intervals
are taken of each set: the middle 95 % of a bootstrap over patients, as the study once reported, and the one
after DeLong on the logit, patients being independent, as it reports now. Where all pairs of films are in
order there is neither. The table gives the share of sets without an interval, the coverage among the others,
and the middle width."""
import argparse, sys
from itertools import product

import numpy as np
import pandas as pd
from scipy.stats import norm
from pneumo_nb.measures import all_measures, auroc_interval, patient_draws

FILMS = 3   # of each patient

def drawn_films(rng, patients: int, auc: float, correlation: float) -> pd.DataFrame:
    "`patients` of each class; the sick lie so much higher that a pair is in order with chance `auc`."
    label = np.repeat([0, 1], patients)
    of_patient = np.sqrt(correlation) * rng.normal(size=2 * patients) + np.sqrt(2) * norm.ppf(auc) * label
    names = np.repeat(np.arange(2 * patients), FILMS)
    score = of_patient[names] + np.sqrt(1 - correlation) * rng.normal(size=len(names))
    return pd.DataFrame(dict(label=label[names], probability=norm.cdf(score), patient_id=names))

def bootstrap_interval(films: pd.DataFrame, seed: int, draws: int) -> tuple: # low, high
    "The middle 95 % of draws of patients."
    values = np.concatenate([all_measures(films, .5, weights)["roc_auc"]
                             for weights in patient_draws(films.patient_id, draws, seed)])
    return tuple(np.nanpercentile(values, [2.5, 97.5]))

def coverage(patients: int, auc: float, correlation: float, sets: int, draws: int) -> dict: # a row
    "Both intervals of many sets of films."
    rng, bounds = np.random.default_rng([patients, round(1000 * auc)]), []
    for k in range(sets):
        films = drawn_films(rng, patients, auc, correlation)
        by_formula = auroc_interval(films)
        if np.isnan(by_formula[0]): continue
        bounds.append((bootstrap_interval(films, k, draws), by_formula))
    bounds = np.reshape(bounds, (-1, 2, 2))
    inside = ((bounds[..., 0] <= auc) & (auc <= bounds[..., 1])).mean(axis=0)
    width = np.median(np.diff(bounds)[..., 0], axis=0)
    return dict(patients=patients, auroc=auc, without=1 - len(bounds) / sets, bootstrap=inside[0],
                delong=inside[1], bootstrap_width=width[0], delong_width=width[1])

def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sets", type=int, default=1000, help="sets of films for each line")
    parser.add_argument("--draws", type=int, default=500, help="of each bootstrap")
    parser.add_argument("--correlation", type=float, default=.9, help="of a patient's films")
    parser.add_argument("--patients", type=int, nargs="+", default=[8, 20, 60, 200], help="of each class")
    parser.add_argument("--auroc", type=float, nargs="+", default=[.9, .95, .98, .99])
    args = parser.parse_args()
    error = np.sqrt(.95 * .05 / args.sets)
    print(f"{args.sets} sets a line, so a coverage of .95 is known to about ± {2 * error:.3f}; "
          f"{args.draws} draws; films of a patient correlate by {args.correlation:g}")
    print("patients a class  AUROC  no interval  bootstrap  DeLong  width, bootstrap  width, DeLong")
    for patients, auc in product(args.patients, args.auroc):
        row = coverage(patients, auc, args.correlation, args.sets, args.draws)
        print("{patients:16} {auroc:6.2f} {without:12.1%} {bootstrap:10.1%} {delong:7.1%} "
              "{bootstrap_width:17.3f} {delong_width:14.3f}".format(**row), flush=True)

if __name__ == "__main__": sys.exit(main())
