"""Extensions: found by entry point, any number at once, and never confused with one another."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

from siteward import extensions
from siteward.cli import main
from siteward.extensions import GROUPS, PACKAGES, ExtensionError, check_packages, found, load
from siteward.server import app
from siteward.server.undeclared import refuse_undeclared
from siteward.settings import Settings

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts distributions with entry points on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(name: str, entry_points: str) -> None:
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(entry_points)
        forget()

    forget()
    yield put
    monkeypatch.undo()
    forget()


def forget() -> None:
    """Look at what is installed anew."""
    extensions._entries.cache_clear()
    found.cache_clear()


def test_our_own_parts_are_extensions() -> None:
    """Siteward's own kinds and commands are found the way an extension's are."""
    assert found("siteward.kinds")["job"].distribution == "siteward"
    assert found("siteward.commands")["kinds"].value == "siteward.cli.kinds:commands"


def test_any_number_at_once(install: Install) -> None:
    """Several extensions add to one group; each thing remembers who brings it."""
    install("lamps", "[siteward.sinks]\nlamp = json:dumps\n")
    install("bells", "[siteward.sinks]\nbell = json:loads\n")
    sinks = found("siteward.sinks")
    assert {name: sinks[name].distribution for name in ("lamp", "bell")} == {"lamp": "lamps", "bell": "bells"}
    assert load("siteward.sinks", "lamp")(1) == "1"


def test_only_who_brings_something_is_described(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    """What else is installed costs each command nothing but a look at its entry points."""
    described = set()
    read = metadata.PathDistribution.read_text

    def note(self: metadata.PathDistribution, filename: str) -> str | None:
        if (text := read(self, filename)) and filename in ("METADATA", "PKG-INFO"):
            described.add(text.partition("Name: ")[2].partition("\n")[0])
        return text

    monkeypatch.setattr(metadata.PathDistribution, "read_text", note)
    install("lamps", "[siteward.sinks]\nlamp = json:dumps\n")
    install("chairs", "[console_scripts]\nchair = json:dumps\n")
    assert found("siteward.sinks")["lamp"].version == "1.0"
    assert described == {"siteward", "lamps"}


def test_name_taken_twice_names_both(install: Install) -> None:
    """Two distributions with the same name in a group are an error that names both and says what to do."""
    install("lamps", "[siteward.sinks]\nlamp = json:dumps\n")
    install("bells", "[siteward.sinks]\nlamp = json:loads\n")
    with pytest.raises(ExtensionError, match=r"'lamp' is taken twice, by \w+ .*and by \w+ .*uninstall one") as caught:
        found("siteward.sinks")
    assert {"lamps", "bells"} <= set(str(caught.value).split())
    assert "job" in found("siteward.kinds"), "another group is not hurt"


def test_unknown_name_lists_the_known(install: Install) -> None:
    """What is not installed is said with what is."""
    install("lamps", "[siteward.sinks]\nlamp = json:dumps\n")
    with pytest.raises(ExtensionError, match="nothing is called 'bell'; installed are lamp, ledger, monitoring"):
        load("siteward.sinks", "bell")


def test_code_that_does_not_load_names_its_distribution(install: Install) -> None:
    """An extension that cannot be imported is an error that names it, not a traceback of somebody else's."""
    install("lamps", "[siteward.sinks]\nlamp = no_such_module:lamp\n")
    with pytest.raises(ExtensionError, match=r"'lamp' of lamps 1\.0 does not load: No module named"):
        load("siteward.sinks", "lamp")


@pytest.mark.parametrize(
    ("registered", "why"),
    [
        ("[siteward.commands]\nlamp = lamps:mute\n", "the command `siteward lamp` declares no permission"),
        ("[siteward.commands]\nlamp = lamps:group\n", "the command `siteward lamp other` declares no permission"),
        ("[siteward.tasks]\nlamp = lamps:mute\n", "is no siteward.server.schedule.Task"),
        ("[siteward.tasks]\nlamp = lamps_task:task\n", "expected Permission"),
    ],
)
def test_nothing_starts_beside_what_declares_nothing(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registered: str, why: str
) -> None:
    """Neither `siteward up` nor the application alone; the command or task of the extension is named."""
    (tmp_path / "lamps.py").write_text(
        "import typer\n"
        "from siteward.cli.verbs import reads\n"
        "from siteward.server.auth import Permission\n"
        "def mute(): ...\n"
        "group = typer.Typer()\n"
        "group.command('one')(reads(Permission.READ)(lambda: None))\n"
        "group.command('other')(mute)\n"
    )
    (tmp_path / "lamps_task.py").write_text(
        "from siteward.server.schedule import Task\ntask = Task('lamp', 1.0, 'platform', print)\n"
    )
    install("lamps", registered)
    with pytest.raises(ExtensionError, match=why):
        app.run(Settings(data=str(tmp_path)), threading.Event())
    monkeypatch.setenv("SITEWARD_DATA", str(tmp_path))
    with pytest.raises(SystemExit) as caught:
        main(["up"])
    assert caught.value.code == 2
    for module in ("lamps", "lamps_task"):
        sys.modules.pop(module, None)


def test_what_an_extension_declares_starts(install: Install, tmp_path: Path) -> None:
    """A command and a task with a permission are no reason to stop."""
    (tmp_path / "bells.py").write_text(
        "from siteward.cli.verbs import reads\n"
        "from siteward.server.auth import Permission\n"
        "from siteward.server.schedule import Task\n"
        "task = Task('bell', 1.0, Permission.PLATFORM, print)\n"
        "@reads(Permission.READ)\n"
        "def ring(): ...\n"
    )
    install("bells", "[siteward.commands]\nbell = bells:ring\n[siteward.tasks]\nbell = bells:task\n")
    refuse_undeclared()
    sys.modules.pop("bells")


def test_unknown_group_is_an_error() -> None:
    """A mistyped extension point is not an empty one."""
    with pytest.raises(ExtensionError, match=r"no extension point is called 'siteward\.kind'"):
        found("siteward.kind")


def test_every_group_is_explained() -> None:
    """Each extension point says its contract in a line."""
    assert all(name.startswith("siteward.") and text for name, text in GROUPS.items())


def test_own_packages_pass() -> None:
    """Siteward as it is installed here is not refused."""
    check_packages()


@pytest.mark.parametrize("package", PACKAGES[1:])
@pytest.mark.parametrize("stray", ["{}.py", "{}/__init__.py"])
def test_package_from_elsewhere_is_refused(tmp_path: Path, package: str, stray: str) -> None:
    """One of our names in another place, a file or a package, stops the start with both places named."""
    path = tmp_path / stray.format(package)
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    script = "import siteward, sys; sys.path.insert(0, sys.argv[1]); from siteward.extensions import check_packages\n"
    script += "try:\n    check_packages()\nexcept RuntimeError as error:\n    print(error)\n"
    answer = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    home = Path(extensions.__file__).resolve().parent.parent
    assert f"the package {package!r} comes from {tmp_path}" in answer.stdout
    assert str(home / package) in answer.stdout
