"""What users see of an error from an engine: in a script, in IPython, in pytest."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import traceback
from pathlib import Path

import pytest

from parallelz import Client, CompositeError, DirectView

pytestmark = pytest.mark.process

TIMEOUT_S = 60

SCRIPT = textwrap.dedent("""
    import sys
    from parallelz import Client

    rc = Client(profile_dir=sys.argv[1])

    def half(x):
        if x % 2:
            raise ValueError(f"{x} is odd")  # the culprit
        return x // 2

    def outer(x):
        try:
            half(x)
        except ValueError as error:
            raise KeyError("outer") from error  # the messenger
""")

CULPRIT_LINE = 1 + SCRIPT[: SCRIPT.index("# the culprit")].count("\n")

IN_IPYTHON = textwrap.dedent("""
    import sys
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    config = Config()
    config.InteractiveShell.colors = "nocolor"
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config)
    shell.run_cell(open(sys.argv[2]).read())
    shell.run_cell("rc.close()")
""")

ONE = "rc[0].apply_sync(half, 3)"
ALL = "rc[:].apply_sync(half, 3)"
CHAINED = "rc[0].apply_sync(outer, 3)"


def run(*args: object, cwd: Path) -> str:
    """Run Python and return all it wrote."""
    done = subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.stdout


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "script.py"


@pytest.fixture
def profile_dir(rc: Client, cluster_profile_dir: Path) -> Path:
    """Return where the shared cluster is, when it is there."""
    return cluster_profile_dir


def counts(shown: str, *texts: str) -> list[int]:
    return [shown.count(text) for text in texts]


# -- in a script --------------------------------------------------------------------------


def test_a_script_shows_the_call_and_once_what_happened_on_the_engine(
    script: Path, profile_dir: Path
) -> None:
    script.write_text(f"{SCRIPT}\n{ONE}\n")
    shown = run(script, profile_dir, cwd=script.parent)
    assert counts(shown, ONE, "# the culprit", "Traceback on the engine:") == [1, 1, 1]
    engine = shown.partition("Traceback on the engine:\n")[2].splitlines()
    assert engine[:3] == [
        "Traceback (most recent call last):",
        f'  File "{script}", line {CULPRIT_LINE}, in half',
        '    raise ValueError(f"{x} is odd")  # the culprit',
    ]
    assert engine[-1] == "ValueError: 3 is odd"
    assert "parallelz.errors.RemoteError: [0:half] ValueError: 3 is odd\n" in shown
    assert "outcomes.py" not in shown


def test_a_script_shows_several_errors_as_a_list_and_the_traceback_of_the_first(
    script: Path, profile_dir: Path
) -> None:
    script.write_text(f"{SCRIPT}\n{ALL}\n")
    shown = run(script, profile_dir, cwd=script.parent)
    assert counts(shown, "# the culprit", "[0:half]ValueError", "[1:half]ValueError") == [1] * 3
    assert "Traceback on the engine, of the first:\n" in shown


def test_a_script_shows_each_traceback_of_a_chain_once(script: Path, profile_dir: Path) -> None:
    script.write_text(f"{SCRIPT}\n{CHAINED}\n")
    shown = run(script, profile_dir, cwd=script.parent)
    assert counts(shown, "# the culprit", "# the messenger") == [1, 1]
    assert shown.index("# the culprit") < shown.index("# the messenger")


def test_code_given_by_the_command_line_fails_readably(profile_dir: Path) -> None:
    shown = run("-c", f"{SCRIPT}\n{ONE}\n", profile_dir, cwd=profile_dir)
    assert counts(shown, "Traceback on the engine:", "ValueError: 3 is odd") == [1, 2]
    assert shown.endswith("ValueError: 3 is odd\n")


def test_an_error_that_is_raised_again_shows_no_more_than_the_first_time(
    dv: DirectView,
) -> None:
    ar = dv.client[0].apply_async(lambda: 1 / 0)
    shown = []
    for _ in range(3):
        with pytest.raises(ZeroDivisionError) as info:
            ar.get(TIMEOUT_S)
        shown.append("".join(traceback.format_exception(info.value)))
    assert len({text.count("\n") for text in shown}) == 1


def test_an_error_taken_out_of_several_shows_its_traceback_once(dv: DirectView) -> None:
    with pytest.raises(ZeroDivisionError) as info:  # noqa: PT012 - as users write it
        try:
            dv.apply_sync(lambda: 1 / 0)
        except CompositeError as errors:
            errors.raise_exception(1)
    shown = "".join(traceback.format_exception(info.value))
    assert counts(shown, "Traceback on the engine", "CompositeError") == [1, 0]


# -- in IPython ---------------------------------------------------------------------------


def test_ipython_shows_the_engines_traceback_alone(script: Path, profile_dir: Path) -> None:
    script.write_text(f"{SCRIPT}\n{ONE}\n")
    shown = run("-c", IN_IPYTHON, profile_dir, script, cwd=script.parent)
    header, *lines = shown.splitlines()
    assert header == "[0:half]"
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[2] == '    raise ValueError(f"{x} is odd")  # the culprit'
    assert lines[-1] == "ValueError: 3 is odd"


def test_ipython_shows_several_errors_one_below_the_other(
    script: Path, profile_dir: Path
) -> None:
    script.write_text(f"{SCRIPT}\n{ALL}\n")
    shown = run("-c", IN_IPYTHON, profile_dir, script, cwd=script.parent)
    assert counts(shown, "[0:half]:\n", "[1:half]:\n", "# the culprit") == [1, 1, 2]


def test_ipython_shows_a_chain_once(script: Path, profile_dir: Path) -> None:
    script.write_text(f"{SCRIPT}\n{CHAINED}\n")
    shown = run("-c", IN_IPYTHON, profile_dir, script, cwd=script.parent)
    assert counts(shown, "# the culprit", "# the messenger", "direct cause") == [1, 1, 1]


# -- in pytest ----------------------------------------------------------------------------


@pytest.mark.parametrize("call", [ONE, ALL], ids=["one", "all"])
def test_pytest_shows_the_test_and_the_engine_and_nothing_between(
    tmp_path: Path, profile_dir: Path, call: str
) -> None:
    test_file = tmp_path / "test_of_a_user.py"
    test_file.write_text(
        textwrap.dedent(f"""
            from parallelz import Client

            def test_half():
                def half(x):
                    if x % 2:
                        raise ValueError(f"{{x}} is odd")  # the culprit
                    return x // 2

                with Client(profile_dir={str(profile_dir)!r}) as rc:
                    {call}
        """)
    )
    # Without the summary, which repeats the whole of the error where the variable CI is set.
    shown = run("-m", "pytest", "-p", "no:cacheprovider", "-rN", test_file, cwd=tmp_path)
    # The source of the test, and the traceback of the engine.
    assert counts(shown, call, "# the culprit", "Traceback on the engine") == [1, 2, 1]
    assert ">" + call.rjust(len(call) + 11) in shown
    assert counts(shown, "results.py", "view.py", "outcomes.py") == [0, 0, 0]
    assert "1 failed" in shown
