"""models/symba, the model that comes with the scripts: it answers where there is no run, MARTY's amplitudes too."""
import json
import os
import subprocess
import sys

import pytest
from repository import ROOT

from dataset.reader import read_rows
from decode import decode, load
from runtime.checkpoint import EXPORTED, SHIPPED

COMPTON = (r"-i*e^2*(p_3_%\sigma_1*gamma_{%\sigma_2,%gam_1,%del_1}*A_{j_1,+%\sigma_1}(p_4)^(*)*A_{l_1,+%\sigma_2}(p_2)*"
           r"e_{k_1,%del_1}(p_1)_u*e_{i_1,%gam_1}(p_3)_u^(*) + 1/2*p_4_%\mu_1*gamma_{+%\mu_1,%gam_2,%gam_3}*"
           r"gamma_{%\sigma_2,%gam_3,%del_2}*gamma_{%\sigma_1,%gam_4,%gam_2}*A_{j_1,+%\sigma_1}(p_4)^(*)*"
           r"A_{l_1,+%\sigma_2}(p_2)*e_{k_1,%del_2}(p_1)_u*e_{i_1,%gam_4}(p_3)_u^(*))/(s_12 + 1/2*reg_prop)")


def test_it_is_small_and_made_from_generated_data_alone():
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) <= 12e6
    settings = json.loads((SHIPPED / "config.json").read_text())["settings"]
    assert settings["theory"] == "qed qcd ew" and settings["files"] == settings["input"] == ""
    assert EXPORTED in {file.name for file in SHIPPED.iterdir()}


def test_without_a_run_it_answers_an_amplitude_in_martys_spelling(tmp_path):
    """A diagram of Compton scattering as MARTY writes it, with the Dirac equation used."""
    done = subprocess.run([sys.executable, ROOT / "decode.py", "--beam", f"--amp={COMPTON}"], cwd=tmp_path,
                          env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and "verified: equal to the square" in done.stdout, done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["qed-2to2", "qcd-2to2"])
def test_rows_of_marty_are_answered_and_verified(marty, name):
    """Every 16th row; docs/results.md has the figures for all of them."""
    rows = [row for _, row in read_rows(marty / f"{name}.csv.gz")][::16]
    answers = list(decode(load(SHIPPED), [row["amp"] for row in rows], beam_size=5, check=True))
    assert sum(answer.status == "verified" for answer in answers) == len(rows)
