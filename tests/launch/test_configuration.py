"""Configuration files and options such as --Cluster.n=4: what they set, and what they say."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy
import pytest

from parallelz.cluster import Cluster
from parallelz.controller_limits import ControllerLimits
from parallelz.engine_options import EngineOptions
from parallelz.errors import ClusterError
from parallelz.launch.configuration import (
    COMMANDS,
    Command,
    ConfigurationError,
    MisusedOption,
    Setting,
    read_configuration,
    split_settings,
)
from parallelz.launch.configuration_classes import (
    attribute_texts,
    classes_of,
    commented_file,
    help_text,
    write_commented_file,
)
from parallelz.launch.configuration_sections import sections_of
from parallelz.launch.configured import (
    controller_options,
    engine_options,
    launcher_options_for,
    overridden,
)
from parallelz.launch.launcher import ControllerOptions, HistoryLimits
from parallelz.launch.registry import launcher_sections
from parallelz.protocol.connection import Heartbeat


def write(profile_dir: Path, text: str, name: str = "ipclusterz_config.py") -> Path:
    path = profile_dir / name
    path.write_text(text)
    return path


# -- files ---------------------------------------------------------------------------------


def test_a_file_sets_what_it_says(tmp_path: Path) -> None:
    write(tmp_path, "c = get_config()\nc.Cluster.n = 4\nc.Slurm.queue = 'long'\n")
    assert read_configuration(tmp_path) == {"Cluster": {"n": 4}, "Slurm": {"queue": "long"}}


def test_without_files_nothing_is_set_and_traitlets_not_imported(tmp_path: Path) -> None:
    code = (
        "import sys, parallelz.cluster, pathlib;"
        "from parallelz.launch.configuration import read_configuration;"
        f"print(read_configuration(pathlib.Path({str(tmp_path)!r})),"
        "'traitlets' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout == "{} False\n"


def test_json_counts_more_than_python(tmp_path: Path) -> None:
    write(tmp_path, "c.Cluster.n = 4; c.Cluster.engines = 'mpi'")
    write(tmp_path, '{"Cluster": {"n": 5}}', "ipclusterz_config.json")
    assert read_configuration(tmp_path) == {"Cluster": {"n": 5, "engines": "mpi"}}


def test_a_cluster_has_what_its_controller_and_its_engines_have(tmp_path: Path) -> None:
    write(tmp_path, "c.Controller.port = 7; c.Scheduler.hwm = 1", "ipcontrollerz_config.py")
    write(tmp_path, "c.Engine.labels = ['gpu']", "ipenginez_config.py")
    write(tmp_path, "c.Scheduler.hwm = 2")
    assert read_configuration(tmp_path) == {
        "Controller": {"port": 7},
        "Engine": {"labels": ["gpu"]},
        "Scheduler": {"hwm": 2},
    }


def test_another_command_does_not_read_a_file(tmp_path: Path) -> None:
    write(tmp_path, "c.Engine.labels = ['gpu']", "ipenginez_config.py")
    assert read_configuration(tmp_path, ("ipcontrollerz",)) == {}


def test_a_list_can_be_added_to(tmp_path: Path) -> None:
    write(tmp_path, "c.Slurm.directives.append('#SBATCH --exclusive')")
    found = read_configuration(tmp_path)
    assert found == {"Slurm": {"directives": ["#SBATCH --exclusive"]}}


def test_a_file_may_include_another(tmp_path: Path) -> None:
    write(tmp_path, "c.Cluster.n = 3; c.Cluster.engines = 'mpi'", "common.py")
    write(
        tmp_path,
        f"load_subconfig('common.py', path={str(tmp_path)!r}); c.Cluster.engines='ssh'",
    )
    assert read_configuration(tmp_path) == {"Cluster": {"n": 3, "engines": "ssh"}}


def test_another_file_is_looked_for_beside_the_one_that_includes_it(tmp_path: Path) -> None:
    write(tmp_path, "c.Cluster.n = 3", "common.py")
    write(tmp_path, "load_subconfig('common.py')")
    assert read_configuration(tmp_path) == {"Cluster": {"n": 3}}


def test_a_command_line_counts_most_then_what_a_program_gives(tmp_path: Path) -> None:
    write(tmp_path, "c.Cluster.n = 1; c.Scheduler.hwm = 1; c.Controller.port = 1")
    more = write(tmp_path, "c.Controller.port = 2; c.Controller.ip = '*'", "more.py")
    found = read_configuration(
        tmp_path,
        more_files=[more],
        given={"Scheduler": {"hwm": 2}, "Cluster": {"n": 2}},
        settings=[Setting("Cluster", "n", "3")],
    )
    assert found == {
        "Cluster": {"n": 3},
        "Scheduler": {"hwm": 2},
        "Controller": {"port": 2, "ip": "*"},
    }


# -- errors in files -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("\n1/0", 2, "ZeroDivisionError: division by zero"),
        ("def f():\n  raise KeyError('x')\nf()", 2, "KeyError: 'x'"),
        ("c.Cluster.n =", 1, "SyntaxError: invalid syntax"),
        ("# c.Cluster.n\nc.Cluster.n = 'x'", 2, "expected an int, not 'x'"),
        ("c.Cluster.n = 0", 1, "must be a whole number, 1 or more"),
        ("\nc.Engine.labels = ['two words']", 2, "'two words' is not a label"),
        ("\nc.History.max_bytes = 'lots'", 2, "'lots' is not a size"),
        ("c.Controller.port = 70000", 1, "must be a port: 1 to 65535"),
        ("c.SSH.hosts = {'node1': 'many'}", 1, "option hosts"),
        ("c.Cluster = 5", 1, "ValueError: "),
        ("\nraise SystemExit(3)", 2, "SystemExit: 3"),
        ("raise ValueError('on two\\nlines')", 1, "ValueError: on two lines"),
        ("open('/nowhere')", 1, "No such file or directory: '/nowhere'"),
        ("\nload_subconfig('nowhere.py')", 2, "No such file or directory: "),
        ("c.Scheduler.scheme = 'lastload'", 1, "did you mean leastload?"),
        ("c.Cluster.engines = 'slrum'", 1, "did you mean slurm?"),
        ("c.Limits.away_grace_s = float('inf')", 1, "must be a number from 0 on, not inf"),
        ("c.Limits.client_grace_s = float('nan')", 1, "must be a number from 0 on, not nan"),
    ],
)
def test_an_error_in_a_file_names_the_line(
    text: str, line: int, said: str, tmp_path: Path
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigurationError) as raised:
        read_configuration(tmp_path)
    assert str(raised.value).startswith(f"{path}:{line}: ")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('{"Cluster":\n{"n": 1.5}}', 2, "expected an int, not 1.5"),
        ('{"Cluster":\n{"n": 1}\n', 3, "not JSON"),
    ],
)
def test_an_error_in_json_names_the_line(
    text: str, line: int, said: str, tmp_path: Path
) -> None:
    path = write(tmp_path, text, "ipclusterz_config.json")
    with pytest.raises(ConfigurationError) as raised:
        read_configuration(tmp_path)
    assert str(raised.value).startswith(f"{path}:{line}: {said}")


def test_a_file_that_must_be_there_is_missed(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.py cannot be read"):
        read_configuration(tmp_path, more_files=[tmp_path / "nowhere.py"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\nc.Clustre.n = 4", "there is no section 'Clustre'; did you mean Cluster?"),
        ("\nc.cluster.n = 4", "'cluster' is no section; did you mean Cluster?"),
        ("\nc.Slurm.quue = 'x'", "section Slurm has no option 'quue'; did you mean queue?"),
        ("\nc.Controller.xyz = 1", "there are ip, location, port"),
    ],
)
def test_what_does_not_exist_in_a_file_is_warned_of(
    text: str, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, f"c.Cluster.n = 2{text}")
    with caplog.at_level(logging.WARNING):
        assert read_configuration(tmp_path) == {"Cluster": {"n": 2}}
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{path}:2: ")
    assert said in record.getMessage()


def test_a_section_in_the_file_of_another_command_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "c.Slurm.queue = 'x'", "ipenginez_config.py")
    assert read_configuration(tmp_path) == {}
    assert "ipenginez does not know it, but ipclusterz does" in caplog.text


# -- the command line ------------------------------------------------------------------------


def test_options_with_a_dot_are_told_from_others() -> None:
    argv = ["start", "-n", "2", "--Slurm.queue=a=b", "--cluster.n", "3", "--location=A.b"]
    assert split_settings(argv) == (
        ["start", "-n", "2", "--location=A.b"],
        [Setting("Slurm", "queue", "a=b"), Setting("cluster", "n", "3")],
    )


def test_an_option_without_a_value_is_refused() -> None:
    with pytest.raises(MisusedOption, match=r"--Cluster\.n needs a value"):
        split_settings(["--Cluster.n"])


@pytest.mark.parametrize(
    ("texts", "value"),
    [
        (("SSH", "hosts", "n1=2", "n2=3"), {"n1": "2", "n2": "3"}),
        (("SSH", "hosts", "{'n1': 2}"), {"n1": 2}),
        (("SSH", "tunnel", "false"), False),
        (("Slurm", "walltime", "12:00:00"), "12:00:00"),
        (("Slurm", "walltime", "3600"), 3600),
        (("Slurm", "directives", "a", "b"), ["a", "b"]),
        (("Engine", "resources", "gpu=2"), {"gpu": 2.0}),
        (("Engine", "labels", "gpu"), ["gpu"]),
        (("Engine", "memory_limit", "2GB"), "2GB"),
        (("Engine", "restart", "True"), True),
        (("Cluster", "n", "None"), None),
        (("Cluster", "engine_timeout", "1.5"), 1.5),
    ],
)
def test_texts_become_values(texts: tuple[str, ...], value: object) -> None:
    section, option, *given = texts
    settings = [Setting(section, option, text) for text in given]
    assert read_configuration(None, settings=settings) == {section: {option: value}}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([("Slrum", "queue", "x")], "--Slrum.queue: there is no section 'Slrum'"),
        ([("Slurm", "quue", "x")], "--Slurm.quue: section Slurm has no option 'quue'"),
        ([("Cluster", "n", "x")], "--Cluster.n: expected an int, not 'x'"),
        ([("cluster", "n", "1")], "--cluster.n: there is no section 'cluster'; did you mean"),
        ([("Cluster", "n", "1"), ("Cluster", "n", "2")], "--Cluster.n: given 2 times"),
        (
            [("Engine", "resources", "gpu=x")],
            "--Engine.resources: expected a dict, not 'gpu=x'; give it once for each item",
        ),
        (
            [("Engine", "resources", "{'gpu': 1")],
            "--Engine.resources: expected a dict, not \"{'gpu': 1\"; give it once",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(
    settings: list[tuple[str, str, str]], said: str
) -> None:
    with pytest.raises(MisusedOption) as raised:
        read_configuration(None, settings=[Setting(*each) for each in settings])
    assert str(raised.value).startswith(said)


# -- what all options have --------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_each_option_is_explained(command: Command) -> None:
    for name, struct in sections_of(command).items():
        texts = attribute_texts(struct)
        for field in msgspec.structs.fields(struct):
            assert len(texts.get(field.name, "")) > 5, f"{name}.{field.name}"


@pytest.mark.parametrize("command", COMMANDS)
def test_defaults_are_the_same_as_without_traitlets(command: Command) -> None:
    for name, struct in sections_of(command).items():
        section = classes_of(command)[name]()
        usual = struct()
        for field in msgspec.structs.fields(struct):
            assert getattr(section, field.name) == getattr(usual, field.name)


def test_each_launcher_with_options_has_a_section_and_is_named() -> None:
    engines = ["MPI", "SSH", "Slurm", "PBS", "SGE", "LSF", "HTCondor"]
    controllers = [f"{name}Controller" for name in engines if name != "MPI"]
    assert list(launcher_sections()) == [*engines, *controllers]
    named = attribute_texts(sections_of("ipclusterz")["Cluster"])["engines"]
    assert all(name in named for name, _ in launcher_sections().values())


def test_help_shows_type_and_default_of_options() -> None:
    shown = help_text("ipclusterz")
    assert "--Cluster.engine_timeout=<Float>\n    Seconds until" in shown
    assert "    Default: 'leastload'" in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_a_commented_file_sets_nothing(command: Command, tmp_path: Path) -> None:
    assert write_commented_file(tmp_path, command, overwrite=False)
    assert read_configuration(tmp_path) == {}


@pytest.mark.parametrize("command", COMMANDS)
def test_all_that_a_commented_file_offers_can_be_set(
    command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [
        line.removeprefix("# ")
        for line in commented_file(command).splitlines()
        if line.startswith("# c.") and "SSH.hosts" not in line
    ]
    write(tmp_path, "\n".join(lines), f"{command}_config.py")
    found = read_configuration(tmp_path)
    assert sum(len(values) for values in found.values()) == len(lines)
    assert caplog.records == []


def test_a_commented_file_never_takes_the_place_of_another(tmp_path: Path) -> None:
    path = write(tmp_path, "c.Cluster.n = 2")
    assert not write_commented_file(tmp_path, "ipclusterz", overwrite=False)
    assert path.read_text() == "c.Cluster.n = 2"
    assert write_commented_file(tmp_path, "ipclusterz", overwrite=True)
    assert path.read_text() == commented_file("ipclusterz")


# -- what it means -----------------------------------------------------------------------------


def test_what_is_given_counts_more_than_what_is_configured() -> None:
    configuration = {
        "Controller": {"ip": "*", "port": 7, "location": "a"},
        "History": {"store": "memory", "max_age_s": 5.0, "max_bytes": "1kB"},
        "Scheduler": {"hwm": 2},
    }
    assert controller_options(configuration) == ControllerOptions(
        "*", 7, "memory", hwm=2, history=HistoryLimits(5.0, None, 1000), location="a"
    )
    given = {
        "controller_ip": "",
        "store": "none",
        "hwm": 0,
        "controller_location": "",
        "scheme": None,
    }
    assert controller_options(overridden(configuration, given)) == ControllerOptions(
        "", 7, "none", hwm=0, history=HistoryLimits(5.0, None, 1000)
    )
    assert configuration["Controller"]["ip"] == "*"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("n", 0, "a whole number, 1 or more, not 0"),
        ("n", 2.5, "a whole number, 1 or more, not 2.5"),
        ("engine_timeout", float("nan"), "more than 0, not nan"),
        ("engines", "slrum", "did you mean slurm?"),
        ("controller_port", 70000, "a port: 1 to 65535"),
        ("controller_port", "http", "a port: 1 to 65535"),
        ("hwm", -1, "a whole number, 0 or more, not -1"),
        ("scheme", "lastload", "did you mean leastload?"),
        ("store", "mongodb", "there is no store called 'mongodb'"),
        ("history_max_age_s", 0, "more than 0, not 0"),
        ("history_max_count", -1, "a whole number, 1 or more, not -1"),
        ("history_max_bytes", "lots", "'lots' is not a size"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused_by_its_name(
    name: str, value: object, said: str
) -> None:
    with pytest.raises(ClusterError) as raised:
        Cluster(load_profile=False, **{name: value})  # type: ignore[arg-type]
    assert str(raised.value).startswith(f"{name}: ")
    assert said in str(raised.value)


def test_numbers_of_numpy_are_numbers() -> None:
    n = overridden({}, {"n": numpy.int64(2)})["Cluster"]["n"]
    assert type(n) is int


def test_engines_have_what_is_configured() -> None:
    configuration = {"Engine": {"n": 3, "labels": ["a"], "memory_limit": "1GB"}}
    assert engine_options(configuration) == EngineOptions(("a",), {}, 10**9)


def test_a_launcher_is_told_what_is_configured_and_given() -> None:
    configuration = {"Slurm": {"queue": "long", "nodes": 2}}
    told = launcher_options_for(configuration, "slurm", {"queue": "short"})
    assert told == {"queue": "short", "nodes": 2}
    assert launcher_options_for(configuration, "local", None) == {}


def test_limits_and_heartbeats_reach_the_controller_s_options() -> None:
    options = controller_options(
        {"Limits": {"away_grace_s": 60.0}, "Heartbeat": {"period_s": 5.0, "timeout_s": 20.0}}
    )
    assert options.heartbeat == Heartbeat(5.0, 20.0)
    name, text = options.arguments[-2:]
    assert name == "--limits"
    assert ControllerLimits.decode(text) == ControllerLimits(away_grace_s=60.0)


def test_usual_limits_are_not_told() -> None:
    assert "--limits" not in ControllerOptions().arguments


def test_a_heartbeat_that_cannot_be_missed_is_refused() -> None:
    with pytest.raises(ClusterError, match="a heartbeat each 5 s"):
        controller_options({"Heartbeat": {"period_s": 5.0}})
