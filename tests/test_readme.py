"""README and docs say what is there: the test command, files, settings and links."""
import re
import shutil
import subprocess

import pytest
from repository import ROOT, tracked
from test_layout import SCRIPTS

from configurator import read_config

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [name for name in tracked("*.md") if not name.startswith("models/")]
COMMAND = "pip install -r requirements.txt && OMP_NUM_THREADS=1 python -m pytest -q -n 2 --dist loadfile"
# --key stands for any setting; the others are flags of torchrun and sbatch
NOT_SETTINGS = {
    "dist", "texts", "squares", "key", "help", "standalone", "nproc-per-node", "parsable", "array", "dependency",
}
EXAMPLES = {"config/mine.py", "my_theory.py"}  # files that the reader makes
FILES = tracked()
FOLDERS = {name.split("/")[0] for name in FILES if "/" in name and not name.startswith(".")}


def page(name):
    return (ROOT / name).read_text(encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------------------
# .ci/run takes the test command from the README

@pytest.fixture
def shown(tmp_path):
    """A function: text of a README -> `.ci/run --show` beside it."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")

    def show(text):
        (tmp_path / "README.md").write_text(text, encoding="utf-8")
        return subprocess.run(["bash", tmp_path / ".ci/run", "--show"], capture_output=True, text=True)

    return show


def test_the_marker_finds_the_test_command(shown):
    result = shown(README)
    assert (result.returncode, result.stdout, result.stderr) == (0, COMMAND + "\n", "")


@pytest.mark.parametrize("text, message", [
    (README.replace("<!-- tests -->\n", ""), "README.md: no line <!-- tests -->"),
    (README + "\n<!-- tests -->\n```bash\ntrue\n```\n", "README.md: the line <!-- tests --> occurs twice"),
    (README.replace("<!-- tests -->", "<!-- tests --> and"), "expected <!-- tests --> alone on its line"),
    (README.replace("<!-- tests -->\n", "<!-- tests -->\n\n"), "expected a code block directly after <!-- tests -->"),
    (README.replace(COMMAND + "\n", ""), "the code block after <!-- tests --> is empty"),
    (README.replace(COMMAND, "  "), "the code block after <!-- tests --> is empty"),
    ("<!-- tests -->\n```bash\npython -m pytest\n", "the code block after <!-- tests --> does not end")])
def test_a_readme_without_one_test_command_is_an_error(text, message, shown):
    result = shown(text)
    assert result.returncode != 0 and result.stdout == ""
    assert message in result.stderr and len(result.stderr.splitlines()) == 1


# ---------------------------------------------------------------------------------------------------------------------
# what README and docs name

def test_the_readme_is_short():
    assert len(README.splitlines()) <= 160


def test_the_table_lists_every_file_of_the_top_level_once():
    table = re.findall(r"^\| `([^`]*\.py)` \| (\w*) \|", README, re.MULTILINE)
    assert sorted(name for name, _ in table) == [name for name in tracked("*.py") if "/" not in name]
    assert {name.removesuffix(".py") for name, use in table if use == "typed"} == SCRIPTS
    assert {use for _, use in table} == {"typed", "edited"}


def test_the_table_lists_every_folder():
    assert sorted(re.findall(r"^\| `(\w+)/` \|", README, re.MULTILINE)) == sorted(FOLDERS)


@pytest.mark.parametrize("name", PAGES)
def test_files_that_a_page_names_exist(name):
    with_folder = set(re.findall(rf"(?<![\w/.])((?:{'|'.join(FOLDERS)})/[\w./-]*\w\.\w+)", page(name)))
    assert with_folder - EXAMPLES <= set(FILES)
    typed = set(re.findall(r"(?:python|torchrun|sbatch)(?: --?[\w=-]+)* ([\w./-]+\.(?:py|sbatch))", page(name)))
    assert typed <= set(FILES)
    names = set(re.findall(r"(?<![\w/.])(\w+\.py)\b", page(name)))  # "train.py", or "numeric.py" of physics/
    assert names - EXAMPLES <= {path.split("/")[-1] for path in FILES}


@pytest.mark.parametrize("name", PAGES)
def test_settings_that_a_page_names_exist(name):
    settings = set(read_config(ROOT / "config/default.py"))
    folder = (ROOT / name).parent
    for own in folder.glob("config.py"), folder.glob("config/default.py"):  # of an experiment
        settings.update(*map(read_config, own))
    flags = set(re.findall(r"(?<![\w-])--([a-z][\w-]*)", page(name)))
    assert flags - NOT_SETTINGS <= settings
    assert set(re.findall(r"`([a-z]\w*)=", page(name))) <= settings  # `split="template"`


def test_the_table_of_training_settings_names_settings():
    cells = re.findall(r"^\| (`.*?) \|", page("docs/training.md"), re.MULTILINE)
    assert cells
    assert set(re.findall(r"`(?:--)?(\w+)`", " ".join(cells))) <= set(read_config(ROOT / "config/default.py"))


def anchors(text):
    """GitHub's anchors of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    for link in re.findall(r"\]\(([^)]+)\)", page(name)):
        if not link.startswith("https://"):
            path, _, anchor = link.partition("#")
            target = (ROOT / name).parent / path if path else ROOT / name
            assert target.exists(), link
            assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link
