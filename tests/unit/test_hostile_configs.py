"""A config from anybody: names that leave their folder, YAML that explodes, code in it. One line, at once."""

import itertools
import time
from pathlib import Path

import pytest
import yaml

from collateral.io.yaml import MAX_BYTES, read_yaml
from collateral.study.command_line import merge_config, read_study
from collateral.study.config import load_study
from refusals import refused

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "workflow/schemas/config.schema.yaml"


LEAVING = [
    "../x",
    "a/b",
    ".",
    "..",
    ".a",
    "a\nb",
    "a\n",
    "a" * 101,
    "{model}",
    "a*",
    "-rf",
    "a b",
    "~",
    "ä",
    "",
    "A",
    "$(x)",
]


@pytest.mark.parametrize("name", LEAVING)
@pytest.mark.parametrize("kind", ["models", "datasets", "editors", "suites"])
def test_a_name_that_could_leave_its_folder_is_refused(kind, name):
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    config[kind][name] = config[kind][config["study"][kind][0]]
    refused("^config: ", load_study, config, SCHEMA)
    del config[kind][name]
    config["study"][kind] = [name]
    refused("^config: ", load_study, config, SCHEMA)


@pytest.mark.parametrize("name", LEAVING)
def test_a_part_of_a_study_has_a_plain_name_too(name):
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    config["study"]["parts"] = {name: {}}
    refused("^config: ", load_study, config, SCHEMA)


def test_a_name_that_is_no_text_is_refused():
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    config["models"][1] = config["models"]["smollm2-135m"]
    refused("^config: ", load_study, config, SCHEMA)


@pytest.mark.parametrize("wheel", ["-r==1", "--pre==1", "a==1 b", "a==../b"])
def test_a_wheel_is_no_option_of_pip(wheel):
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    config["models"]["smollm2-135m"]["source"]["wheel"] = wheel
    refused(r"models\.smollm2-135m\.source\.wheel", load_study, config, SCHEMA)


def bomb():
    names = "abcdefghij"
    levels = [f"{two}: &{two} [{', '.join([f'*{one}'] * 10)}]" for one, two in itertools.pairwise(names)]
    return "\n".join([f"a: &a [{', '.join('x' * 10)}]", *levels])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (bomb(), "values, over the limit of"),
        ("a: &a [*a]", "nested too deeply, or in itself"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("x: " + "y" * MAX_BYTES, "bytes of a config, over the limit"),
        ("__use_yte__: true\nx: ?print(1)", "__use_yte__ runs Python"),
        ("- a\n- b", "holds list, not the keys of a config"),
        ("just text", "holds str"),
        ("", "holds NoneType"),
        ("a: !!python/object/apply:os.system [id]", "not readable as a config"),
        ("a: !!python/name:os.system", "not readable as a config"),
        ("a: [", "not readable as a config"),
        ("a: \x00", "not readable as a config"),
    ],
    ids=lambda value: ascii(value)[:24],
)
def test_a_hostile_config_is_refused_at_once_in_one_line(tmp_path, text, match):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    began = time.monotonic()
    refused(match, merge_config, ROOT, path, [])
    assert time.monotonic() - began < 10


def test_what_stands_in_a_config_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "study.yaml").write_bytes(b"study: \xff\xfe")
    refused("not readable as a config", read_yaml, tmp_path / "study.yaml", "a config")


def test_a_config_with_an_unknown_key_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "study.yaml").write_text("trust_remote_code: true")
    refused("unknown key of the top level", read_study, ROOT, tmp_path / "study.yaml", [])
