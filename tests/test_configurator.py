"""Settings: precedence, types, one clear error line each, and config files that are never run."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import configurator
from configurator import load_settings, settings_text
from runtime.files import InputError

ROOT = Path(configurator.__file__).resolve().parent
KEYS = ["out_dir", "d_model", "learning_rate", "resume", "theory"]


def load(*argv):
    return load_settings("usage", KEYS, list(argv))


def write(folder, text, name="mine.py"):
    path = folder / name
    path.write_text(text)
    return str(path)


def test_default_file_has_a_comment_and_a_plain_type_for_every_setting():
    defaults = configurator.read_config(configurator.DEFAULT)
    comments = configurator.read_comments()
    assert list(comments) == list(defaults)
    assert all(comments.values())
    assert {type(value) for value in defaults.values()} <= {bool, int, float, str}


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.py")), ids=lambda path: path.stem)
def test_every_shipped_config_loads(path):
    settings = load(str(path))
    assert settings.config_name == path.stem
    assert settings.data_dir and settings.out_dir


def test_flags_override_the_config_file_which_overrides_the_defaults(tmp_path):
    config = write(tmp_path, "d_model = 64\nlearning_rate = 1e-3 / 4\n")
    default, settings = load(), load(config, "--d_model=32", "--resume")
    assert (settings.d_model, settings.learning_rate, settings.resume) == (32, 2.5e-4, True)
    assert settings.heads == default.heads


def test_folders_are_named_after_the_config_file(tmp_path):
    config = write(tmp_path, "theory = 'qed'\n")
    settings = load(config)
    assert (settings.config_name, settings.data_dir, settings.out_dir) == ("mine", "data/mine", "out/mine")
    assert load().out_dir == "out/default"
    assert load(config, "--out_dir=elsewhere").out_dir == "elsewhere"


def test_a_flag_that_the_script_does_not_read_is_named(capsys):
    load_settings("", ["seed", "out_dir"], ["--seed=2", "--beam_size=3", "--run_id=a"])
    said = capsys.readouterr().err
    assert "note: --beam_size says nothing to this script" in said and said.count("note:") == 1


@pytest.mark.parametrize("flag, key, value", [
    ("--learning_rate=1", "learning_rate", 1.0),
    ("--max_steps=1_000", "max_steps", 1000),
    ("--output=2024", "output", "2024"),
    ("--output='a b'", "output", "a b"),
    ("--input='a b' 'c d'", "input", "'a b' 'c d'"),
    ("--masses=", "masses", ""),
    ("--processes=2->2", "processes", "2->2"),
    ("--amp=-1/2*i*e^2", "amp", "-1/2*i*e^2"),
    ("--amp=a=b", "amp", "a=b"),
    ("--resume=False", "resume", False),
])
def test_flag_values_take_the_type_of_the_setting(flag, key, value):
    got = getattr(load(flag), key)
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize("flag, message", [
    ("--d_modle=3", "unknown setting d_modle; did you mean d_model?"),
    ("--d-model=3", "did you mean d_model?"),
    ("--zzzzzz=3", "config/default.py lists them all"),
    ("--d_model=3.5", "d_model: got 3.5, wanted a whole number"),
    ("--d_model=True", "d_model: got True, wanted a whole number"),
    ("--d_model=many", "d_model: got 'many', wanted a whole number"),
    ("--resume=1", "resume: got 1, wanted True or False"),
    ("--learning_rate=1e999", "learning_rate: got inf, wanted a finite number"),
    ("--d_model", "--d_model needs a value"),
    ("-d_model=3", "settings are written --key=value"),
    ("--config_name=x", "unknown setting config_name"),
])
def test_wrong_flags_name_the_key_and_the_rule(flag, message):
    with pytest.raises(InputError) as error:
        load(flag)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text, line, message", [
    ("d_model = 3\nd_modle = 4\n", 2, "unknown setting d_modle; did you mean d_model?"),
    ("d_model = 'x'\n", 1, "d_model: got 'x', wanted a whole number"),
    ("\nd_model = (\n", 2, "not valid Python"),
    ("import os\n", 1, "only comments and lines `name = value`"),
    ("d_model += 1\n", 1, "only comments and lines `name = value`"),
    ("d_model = heads = 1\n", 1, "only comments and lines `name = value`"),
    ("d_model = 4 * head\n", 1, "d_model: no setting head to compute it from; did you mean heads?"),
    ("d_model = 4 * zzzzzz\n", 1, "config/default.py lists them all"),
    ("d_model = 4 * theory\n", 1, "arithmetic is for numbers only, got 'qed'"),
    ("d_model = heads.real\n", 1, "wanted a plain value"),
    ("d_model = 64\nd_ff = d_model / 2\n", 2, "d_ff: got 32.0, wanted a whole number"),
    ("max_steps = max_steps * max_steps\n" * 99, 3, "max_steps: arithmetic beyond 1e+18"),
    ("d_model = __import__('os').system('true')\n", 1, "wanted a plain value"),
    ("d_model = [8]\n", 1, "wanted a plain value"),
    ("d_model = 9**9**9\n", 1, "wanted a plain value"),
    ("d_model = 8 / 0\n", 1, "division by zero"),
    ("theory = 'a' * 3\n", 1, "arithmetic is for numbers only"),
])
def test_wrong_config_lines_are_named_by_file_and_line(tmp_path, text, line, message):
    config = write(tmp_path, text)
    with pytest.raises(InputError) as error:
        load(config)
    assert str(error.value).startswith(f"{config}:{line}: ")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_value_is_computed_from_settings_above_it_or_from_the_defaults(tmp_path):
    config = write(tmp_path, "d_ff = 4 * d_model\nd_model = 48\nencoder_d_model = d_model\n"
                             "encoder_d_ff = 2 * (d_model + encoder_d_model) - heads\nckpt = theory\n")
    default, settings = load(), load(config, "--d_model=32")
    assert settings.d_ff == 4 * default.d_model
    assert (settings.encoder_d_model, settings.encoder_d_ff) == (48, 192 - default.heads)
    assert (settings.d_model, settings.ckpt) == (32, default.theory)


def test_a_config_file_is_never_run(tmp_path):
    marker = tmp_path / "marker"
    config = write(tmp_path, f"theory = open({str(marker)!r}, 'w').write('x')\n")
    with pytest.raises(InputError):
        load(config)
    assert not marker.exists()


@pytest.mark.parametrize("content", [
    b"\xff\xfe\x00d", b"a\x00b = 1", b"d_model = " + b"(" * 5000, b"d_model = " + b"-" * 9000 + b"1"])
def test_a_config_file_that_is_no_text_is_one_line(tmp_path, content):
    path = tmp_path / "mine.py"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        load(str(path))
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_missing_config_file_names_the_nearest_one():
    with pytest.raises(InputError, match="did you mean config/quickstart.py?"):
        load("config/quikstart.py")
    with pytest.raises(InputError, match="one config file at most"):
        load("config/qed.py", "config/quickstart.py")


def test_config_files_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load("config/quickstart.py").config_name == "quickstart"
    (tmp_path / "config").mkdir()
    write(tmp_path / "config", "d_model = 48\n", "quickstart.py")
    assert load("config/quickstart.py").d_model == 48  # the working directory comes first


def test_the_settings_of_a_run_are_a_config_file_that_changes_nothing(tmp_path):
    before = load("config/quickstart.py", "--amp=it's \"quoted\" \\ text", "--learning_rate=3e-5", "--resume")
    folder = tmp_path / "quickstart"
    folder.mkdir()
    after = load(write(folder, settings_text(before), "config.py"))
    assert after == before


@hypothesis_settings(max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
       st.floats(allow_nan=False, allow_infinity=False), st.integers(-10**9, 10**9))
def test_any_value_survives_being_written_and_read(tmp_path_factory, text, real, whole):
    before = load()
    before.amp, before.learning_rate, before.max_steps = text, real, whole
    after = load(write(tmp_path_factory.mktemp("run"), settings_text(before)))
    assert (after.amp, after.learning_rate, after.max_steps) == (text, real, whole)


def run(*argv, cwd):
    script = "'''How to run it'''\nfrom configurator import load_settings\nfrom runtime.files import main_guard\n" \
             "main_guard(lambda: load_settings(__doc__, ['d_model', 'resume']) and None)\n"
    return subprocess.run([sys.executable, "-c", script, *argv], cwd=cwd, capture_output=True, text=True, timeout=60,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})


def test_help_shows_the_usage_and_the_settings_that_the_script_reads(tmp_path):
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "How to run it" in done.stdout
    assert "--d_model=" in done.stdout and configurator.read_comments()["d_model"] in done.stdout
    assert "learning_rate" not in done.stdout


def test_an_error_is_one_line_and_exit_code_2(tmp_path):
    done = run("--d_modle=3", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
    assert done.stdout == ""


def test_the_table_shows_what_differs_from_the_default(tmp_path):
    done = run("--d_model=48", cwd=tmp_path)
    assert done.returncode == 0
    assert "*d_model = 48" in done.stderr and " resume = False" in done.stderr and "learning_rate" not in done.stderr
