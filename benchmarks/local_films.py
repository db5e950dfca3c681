"""How many films of one's own recalibration needs, on the test films of a run. That is a look."""
import argparse
from pathlib import Path

import pandas as pd

from pneumo_nb.doubt import left_out_answers
from pneumo_nb.hospital import recalibration_trial, trial_quantiles, trial_shares, trial_table
from pneumo_nb.measures import RULES
from pneumo_nb.run import write_csv

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("run", type=Path, help="folder of a run")
parser.add_argument("model")
parser.add_argument("--repeats", type=int, default=200)
parser.add_argument("--write", type=Path, help="folder for local_films.csv and local_shares.csv")

if __name__ == "__main__":
    asked = parser.parse_args()
    patients = pd.read_csv(asked.run/"images.csv", dtype=str).set_index("path").patient_id
    films = pd.read_csv(asked.run/f"predictions/{asked.model}.csv")
    test = films[films.split == "test"].join(patients, on="path").reset_index(drop=True)
    threshold = RULES["sensitivity .95"](left_out_answers(asked.run, asked.model))
    trial = recalibration_trial(test, threshold, repeats=asked.repeats)
    found, shares = trial_quantiles(trial).round(4), trial_shares(trial).round(4)
    print(trial_table(found).to_string(index=False), shares.to_string(index=False), sep="\n\n")
    if asked.write:
        write_csv(asked.write/"local_films.csv", found)
        write_csv(asked.write/"local_shares.csv", shares)
