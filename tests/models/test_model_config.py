"""Networks described in a file."""

import pytest

from mobiledeploy.errors import LoadError, UsageError
from mobiledeploy.models.build import create
from mobiledeploy.models.config import load_config, read_config
from mobiledeploy.models.spec import ArchitectureOptions, ModelSpec


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "model.yaml"
        path.write_text(text)
        return path

    return write


def test_a_file_and_python_describe_the_same_network(write):
    path = write(
        """
        family: v3
        width: 0.5
        resolution: 96
        num_classes: 10
        architecture:
          width_rule: slim
          rows:
            - [3, 16, 16, false, RE, 1]
            - {k: 5, exp: 64, out: 24, SE: true, NL: HS, s: 2}
        """
    )
    rows = ((3, 16, 16, False, "RE", 1), (5, 64, 24, True, "HS", 2))
    assert load_config(path) == ModelSpec(
        family="v3-large",
        width=0.5,
        resolution=96,
        num_classes=10,
        architecture=ArchitectureOptions(rows=rows, width_rule="slim"),
    )
    create(load_config(path))


def test_omitted_fields_have_their_defaults(write):
    assert load_config(write("family: v2")) == ModelSpec(family="v2")


@pytest.mark.parametrize("number", ["1e-5", "1E-5", "1.0e-5", "1.e-5", "+.1e-4", "0.00001"])
def test_numbers_may_be_written_as_in_the_documentation(write, number):
    path = write(f"family: v2\narchitecture: {{norm_eps: {number}}}")
    assert load_config(path).architecture.norm_eps == 1e-5


@pytest.mark.parametrize("path", ["1e-5.pth", "e5", "./1e5", "'1e5'"])
def test_other_scalars_stay_text(write, path):
    found = load_config(write(f"family: v2\nweights: {path}")).weights
    assert found == path.strip("'")


def test_only_the_fields_of_the_file_are_returned(write):
    path = write("family: v3\nwidth: 1.0")  # the default, but stated
    assert read_config(path) == {"family": "v3-large", "width": 1.0}


@pytest.mark.parametrize("model", [None, "v3", "v3-large"])
def test_the_family_may_be_given_in_both_places(write, model):
    assert read_config(write("family: v3"), model) == {"family": "v3-large"}


def test_contradictory_families_are_refused(write):
    with pytest.raises(UsageError, match=r"yaml describes a v3-large; requested was v3-small"):
        read_config(write("family: v3"), "v3-small")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds NoneType"),
        ("- v2", "holds list"),
        ("width: 1.0", "needs a family"),
        ("family: v9", "no model 'v9'"),
        ("family: 2", "no family 2"),
        ("family: v2\nwidht: 1", "no field 'widht'"),
        ("family: v2\narchitecture: {rowz: []}", "no field 'architecture.rowz'"),
        ("family: v2\narchitecture: 5", "architecture is 5"),
        ("family: v2\narchitecture: {rows: 5}", "rows is 5"),
        (
            "family: v2\narchitecture: {rows: [{t: 1, c: 16, n: 1}]}",
            "row 1 has the columns t, c, n",
        ),
        ("family: v2\narchitecture: {rows: [[1, 16, 1]]}", "4 columns: t, c, n, s"),
        ("family: v2\nwidth: wide", "width is 'wide'"),
        ("family: v2\nweights: null", "weights is None; expected imagenet, random, or the"),
        ("family: v2\nweights: 3", "weights is 3"),
        ("family: v2\nweights: {a: 1}", "weights is {'a': 1}"),
    ],
)
def test_an_invalid_file_is_refused_with_the_field(write, text, message):
    with pytest.raises(UsageError, match=message) as refusal:
        load_config(write(text))
    assert "model.yaml" in refusal.value.message


@pytest.mark.parametrize("text", ["family: [v2", "family: !!python/object/apply:os.getpid []"])
def test_a_file_that_is_not_plain_yaml_cannot_be_loaded(write, text):
    with pytest.raises(LoadError, match="is not YAML"):
        load_config(write(text))


def test_binary_and_missing_files_and_folders_cannot_be_loaded(tmp_path):
    binary = tmp_path / "weights.pt"
    binary.write_bytes(b"\x80\xff\xfe\x00")
    with pytest.raises(LoadError, match="is not YAML"):
        load_config(binary)
    with pytest.raises(LoadError, match="No such file"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(LoadError, match="directory"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "{a: " * 100_000, "a: 2020-99-99", f"a: {'9' * 5000}"],
    ids=["lists", "mappings", "date", "digits"],
)
def test_a_file_that_the_yaml_reader_fails_on_is_not_yaml(write, text):
    with pytest.raises(LoadError, match="is not YAML"):
        load_config(write(text))


def test_aliases_that_repeat_a_list_endlessly_are_not_printed_in_full(write):
    lines = ["architecture:", "  padding:", "    - &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"    - &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(UsageError, match="padding is ") as caught:
        load_config(write("family: v2\n" + "\n".join(lines)))
    assert len(str(caught.value)) < 10_000


@pytest.mark.parametrize("architecture", ["[1, 2]", "text", "5"])
def test_an_architecture_that_is_no_mapping_is_refused_beside_a_head(architecture, tmp_path):
    path = tmp_path / "x.yml"
    path.write_text(f'family: v2\nhead: "linear:4"\narchitecture: {architecture}\n')
    with pytest.raises(UsageError, match="expected a mapping of options"):
        load_config(path)
