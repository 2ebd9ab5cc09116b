"""docs/quickstart.ipynb runs from its first cell to its last, here with few rows and few steps."""
import os
import re
import sys

import pytest
from repository import ROOT

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")


def test_the_notebook_runs(tmp_path, monkeypatch):
    notebook = nbformat.read(ROOT / "docs" / "quickstart.ipynb", as_version=4)
    parameters, = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    parameters.source = f"""processes, steps = "e e~ -> mu mu~; e mu -> e mu; e A -> e A; e e -> e e; e e~ -> e e~", 20
data, run = {str(tmp_path / "data")!r}, {str(tmp_path / "run")!r}"""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PATH", f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")  # of `!python`
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3",
                                     resources={"metadata": {"path": str(ROOT / "docs")}})
    client.execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    text = "".join(output.get("text", "") for cell in code for output in cell.outputs)
    assert "rows: " in text and "all verified" in text and "best on the validation split" in text
    assert "sequence accuracy" in text and "lookup table" in text
    shown = [list(output.data) for cell in code for output in cell.outputs if output.output_type == "execute_result"]
    answers = [output.data["text/html"] for cell in code for output in cell.outputs
               if output.output_type == "execute_result" and "<b style" in output.data.get("text/html", "")]
    assert len(answers) == 1 and re.search(">(verified|unverified|unfinished)</b>: ", answers[0])
    assert "least certain token" in answers[0]
    assert ["image/png", "text/plain"] in shown and (tmp_path / "run" / "report.html").exists()
