"""What the documentation shows is there: its commands and blocks of Python are run, and its links and the names in its
text, and in that of the source, lead somewhere.

Commands are run as they stand, in a folder where small stand-ins lie under the names that they use: runs of thin
networks, few images. Numbers that only make them long are lowered (`SHORT`), or given (`ADDED`). Those that have no
option and no kind of file which an earlier one of the same name has not are run by `make test-slow`, and so are all
but one of those that run every study.
"""

import dataclasses
import functools
import os
import pickle
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from click.testing import CliRunner, Result
from PIL import Image
from sklearn.datasets import load_digits

import cli
from irevnet import Checkpoint, IRevNet, IRevNetConfig, save_checkpoint
from irevnet.checkpoints import released
from irevnet.checkpoints.pretrained import is_pretrained
from irevnet.data import imagenet
from irevnet.data.transforms import InputTransform
from irevnet.models import zoo as presets
from irevnet.models.config import Config, ResNetConfig, RevNetConfig
from irevnet.training.config import TrainConfig
from irevnet.training.runs import new_run
from irevnet.training.settings import RunSettings

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "docs/results/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
GROUPS = {"irevnet": cli.main, "irevnet-analyze": cli.analyze}

CLASSES = ("cat", "dog", "ship")
NEWEST = Path("runs/irevnet-small")
"""What commands without --ckpt take."""

SHORT = {
    "-b": 8,
    "-j": 0,
    "--classes": 3,
    "--depth": 1,
    "--depths": 2,
    "--draws": 2,
    "--image-size": 32,
    "--k": 3,
    "--num-images": 1,
    "--num-noise": 5,
    "--num-pairs": 1,
    "--num-values": 5,
    "--steps": 3,
}
"""Options whose numbers are lowered to these."""

ADDED = {
    "train": ["-b", "4", "--max-steps", "1"],
    "invert": ["--num-noise", "5", "--num-images", "1"],
    "interpolate": ["--num-pairs", "1"],
    "metamers": ["--num-pairs", "1"],
    "spectrum": ["--num-images", "1"],
    "pca": ["--dims", "2"],
}
"""Options that a command gets where it does not have them."""


@dataclass(frozen=True)
class Shown:
    """A command as a page shows it.

    Attributes:
        place: page and line.
        folder: where the page has changed to.
        words: of the command.
    """

    place: str
    folder: str
    words: tuple[str, ...]

    def values(self, *options: str) -> list[str]:
        """What stands after these options."""
        return [value for option, value in zip(self.words, self.words[1:]) if option in options]

    @property
    def arguments(self) -> list[str]:
        """Files and folders that are no options."""
        flags = {"--even", "--exact", "--json", "--resume", "--dry-run", "--download", "--logistic", "--save-probes"}
        flags |= {"--over-training"}
        pairs = zip(self.words[1:], self.words[2:])
        return [word for before, word in pairs if word[0] != "-" and (before[0] != "-" or before in flags)]

    @property
    def kind(self) -> tuple[str, ...]:
        """The command up to its paths, of which is said what they are: files of a kind, or runs of an architecture."""
        return tuple(_kind_of(Path(word)) if word in self._paths else word for word in self.words)

    @property
    def traits(self) -> set[str]:
        """Its options and kinds of files, and of data that are no folder."""
        data = {f"{':' * (':' in word)}{Path(word.split(':')[0]).suffix}" for word in self.values("--data")}
        return (
            {_kind_of(Path(word)) for word in self._paths}
            | {word for word in self.words if word[0] == "-"}
            | data
            | {""}
        )

    @property
    def _paths(self) -> set[str]:
        named = self.values("--ckpt", "--out", "-o", "--resume", "--features", "--labels", "--export")
        return {*named, *self.arguments} - {*self.words[:2]}


def _fences(page: Path, language: str) -> list[tuple[int, str]]:
    """The fenced blocks of a language, each with the number of its first line."""
    text = page.read_text(encoding="utf-8")
    blocks = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(text[: block.start(2)].count("\n") + 1, block[2]) for block in blocks if block[1] == language]


def _commands() -> list[Shown]:
    """All commands that are shown; of those that differ in paths alone, the first."""
    found: dict[tuple[str, ...], Shown] = {}
    for page in PAGES:
        for start, block in _fences(page, ""):
            folder = "."
            for number, line in enumerate(block.splitlines(), start=start):
                if line.startswith("cd "):
                    folder = line.removeprefix("cd ")
                command = re.sub(r"^([A-Z_]+=\S+ )+", "", line)
                command = re.sub(r"^torchrun .*\$\(which (\S+)\)", r"\1", command)  # here, by one process
                if command.split(" ")[0] not in GROUPS:
                    continue
                place = f"{page.relative_to(ROOT)}:{number}"
                shown = Shown(place, folder, tuple(shlex.split(command, comments=True)))
                found.setdefault(shown.kind, shown)
    return list(found.values())


def _kind_of(path: Path) -> str:
    if is_pretrained(path):
        return "pretrained"
    if path.suffix in (".pt", ".tar", ".html", ".csv", ".png", ".jpg", ".npz", ".npy"):
        return path.suffix
    return type(presets.preset_config(_model_of(path))).__name__


def _model_of(path: Path) -> str:
    """The network whose name is in that of a run."""
    names = sorted((name for name in presets._PRESETS if name in path.name), key=len)
    return names[-1] if names else "resnet-cifar" if "resnet" in path.name else "irevnet-small"


COMMANDS = _commands()


def _repeating() -> Iterator[Shown]:
    """Commands that show little that an earlier one of the same name does not show."""
    seen: dict[str, set[str]] = {}
    for command in COMMANDS:
        traits = seen.setdefault(command.words[1], set())
        every_study = command.words[1] == "all" and "--dry-run" not in command.words
        if command.traits <= traits or (every_study and traits):
            yield command
        traits |= command.traits


SLOW = list(_repeating())

LARGE = {name for name, (config, _) in presets._PRESETS.items() if config.input_shape[1] > 32}
"""Networks for ImageNet."""


def _thin(config: Config) -> Config:
    """Two blocks, few channels, and images of 8 x 8."""
    kinds = {"input_shape": (3, 8, 8), "blocks": (1, 1)}
    match config:
        case IRevNetConfig():
            channels = None if config.bijective else 8
            return IRevNetConfig(**kinds, num_classes=3, strides=(1, 1), channels=channels)
        case ResNetConfig():
            return ResNetConfig(**kinds, widths=(4, 4), block="basic", stem="cifar")
        case RevNetConfig():
            return RevNetConfig(**kinds, widths=(16, 16), strides=(1, 1))


def _small(input_shape: tuple[int, int, int], num_classes: int) -> IRevNetConfig:
    return IRevNetConfig(input_shape=input_shape, num_classes=num_classes, blocks=(1, 1), strides=(1, 1))


def _write_cifar(root: Path) -> None:
    """Digits in colour in the layout of both CIFAR sets: of each class five to train on and two to test on."""
    digits = load_digits()
    rows = np.stack([np.flatnonzero(digits.target == label)[:7] for label in range(len(CLASSES))], axis=1)
    pixels = np.kron(digits.images * 15, np.ones((1, 4, 4))).astype(np.uint8)
    flat = np.repeat(pixels.reshape(len(pixels), 1, -1), 3, axis=1).reshape(len(pixels), -1)

    def part(chosen: np.ndarray, labels: str) -> dict:
        return {"data": flat[chosen], labels: digits.target[chosen].tolist()}

    ten, hundred = root / "cifar-10-batches-py", root / "cifar-100-python"
    files = {ten / f"data_batch_{i + 1}": part(rows[i], "labels") for i in range(5)}
    files |= {
        ten / "test_batch": part(rows[5:].ravel(), "labels"),
        ten / "batches.meta": {"label_names": list(CLASSES)},
    }
    files |= {hundred / "train": part(rows[:5].ravel(), "fine_labels")}
    files |= {hundred / "test": part(rows[5:].ravel(), "fine_labels")}
    files |= {hundred / "meta": {"fine_label_names": list(CLASSES)}}
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(content))


def _write_image(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([seed, *path.name.encode()]).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def _write_folder(folder: Path) -> None:
    """A data set of files."""
    for number, name in enumerate(CLASSES):
        for split, count in (("train", 4), ("val", 2)):
            for n in range(count):
                _write_image(folder / split / name / f"{n}.png", seed=number)


def _write_run(folder: Path, root: Path, *, finished: bool = True) -> None:
    """A run of the network that the folder is named for, after an epoch of three steps, or one step."""
    torch.manual_seed(0)
    model = _model_of(folder)
    data = str(root / "imagenet") if model in LARGE else "cifar100" if "cifar100" in folder.name else "cifar10"
    training = TrainConfig(epochs=1, batch_size=4)
    settings = RunSettings(model=model, data=data, training=training, image_size=8, keep_every=3)
    run = new_run(folder, settings, data_root=root / "data")
    list(run.epochs(max_steps=None if finished else 1))
    losses = "".join(f"{step},{1 / step}\n" for step in range(1, 121))  # of a longer one
    (folder / "losses.csv").write_text(f"step,loss\n{losses}")


def _write_checkpoint(path: Path) -> None:
    model, transform = presets.build_model("irevnet-small"), InputTransform(channels=1, image_size=(8, 8))
    save_checkpoint(path, Checkpoint(model=model, transform=transform, data="digits", classes=(), metrics={}))


def _write_features(path: Path) -> None:
    """Features of three classes, or labels of these."""
    labels = np.repeat(CLASSES, 10)
    features = np.random.default_rng(0).normal(size=(len(labels), 4))
    if path.suffix == ".npz":
        np.savez(path, features=features, labels=labels)
    else:
        np.save(path, labels if "labels" in path.name else features)


def _write_released(path: Path) -> None:
    """Weights in the layout of the authors' release."""
    config = IRevNetConfig(input_shape=(3, 8, 8), num_classes=3, blocks=(1, 1), strides=(2, 2), kernel_sizes=(3, 3, 3))
    names = {"blocks.": "stack.", ".bottleneck.": ".bottleneck_block.", "head.norm.": "bn1."}
    names |= {"head.classifier.": "linear."}
    state = {}
    for key, tensor in IRevNet(config).state_dict().items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        state[f"module.{key}"] = tensor
    torch.save({"epoch": 1, "arch": "i-revnet", "state_dict": state, "best_prec1": 74.0, "optimizer": {}}, path)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder with data, which fills up with stand-ins."""
    root = tmp_path_factory.mktemp("docs")
    _write_cifar(root / "data")
    for name in ("imagenet", "photos", "photographs"):
        _write_folder(root / name)
    for number, name in enumerate(CLASSES):
        for n in range(6):
            for folder in ("albums", "data/eurosat/2750"):
                _write_image(root / folder / name / f"{n}.png", seed=number)
            _write_image(root / "birds" / f"{name}{n}.png", seed=number)
            _write_image(root / "holiday" / f"{name}{n}.png")
    lines = "".join(f"{name}{n}.png,{name}\n" for name in CLASSES for n in range(6))
    (root / "birds" / "labels.csv").write_text(f"path,label\n{lines}")
    _write_image(root / "ilsvrc" / "ILSVRC2012_val_1.png")
    (root / "ilsvrc" / "LOC_val_solution.csv").write_text(
        "ImageId,PredictionString\nILSVRC2012_val_1,n01440764 0 0 9 9\n"
    )
    return root


@pytest.fixture
def small_world(workplace, blank_figures, monkeypatch) -> None:
    """Networks are thin, figures are blank, and nothing is fetched."""
    thin = {name: (_thin(config), source) for name, (config, source) in presets._PRESETS.items()}
    of_torchvision = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])
    released_images = dataclasses.replace(released.IMAGENET_TRANSFORM, image_size=(8, 8), resize=9)
    monkeypatch.setattr("irevnet.checkpoints.pretrained.FOLDER", workplace / "pretrained")
    monkeypatch.setattr(presets, "_PRESETS", thin)
    monkeypatch.setattr(presets, "small_config", _small)
    monkeypatch.setattr(released, "IMAGENET_TRANSFORM", released_images)
    monkeypatch.setattr("torchvision.models.get_model", lambda *_, **__: of_torchvision)
    monkeypatch.setattr("analysis.linalg.singular_values.DENSE", 100)  # of 192
    names = imagenet.output_names
    monkeypatch.setattr(
        "analysis.opening.output_names",  # which the stand-in for ImageNet has
        lambda classes: CLASSES if {*classes} <= {*CLASSES} else names(classes),
    )
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5=None: Path(path).is_file())
    monkeypatch.setenv("IREVNET_DATA_ROOT", str(workplace / "data"))


def _write_code(name: str) -> None:
    """The block that defines what is named, in the file that is named."""
    file, _, _ = name.partition(":")
    blocks = (code for _, code in _fences(ROOT / "docs" / "any-network.md", "python"))
    Path(file).write_text(next(code for code in blocks if code.startswith(f"# {file}\n")))


def _prepare(command: Shown, root: Path) -> None:
    """Puts what the command names where it is not yet."""
    runs = [str(root / NEWEST), *command.values("--ckpt", "--judge")]
    if command.words[1] in ("training-curves", "report"):
        runs += command.arguments
    for path in map(Path, runs):
        if str(path).startswith(("torchvision:", "timm:")) or path.exists():
            continue
        if is_pretrained(path):
            name = str(path).removeprefix("pretrained:")
            file = root / "pretrained" / f"{name}.pt"
            if not file.exists():
                _write_run(root / "runs" / name, root)
                file.parent.mkdir(exist_ok=True)
                shutil.copy(root / "runs" / name / "last.pt", file)
            continue
        if ".py:" in str(path):
            _write_code(path.name)
            continue
        if path.suffix == ".pth":
            weights = torchvision.models.get_model("resnet18", num_classes=3).state_dict()
            torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}}, path)
            continue
        if path.suffix == ".tar":
            _write_released(path)
        elif path.suffix == ".pt":
            shutil.copy(root / NEWEST / "last.pt", path)
        else:
            _write_run(path, root)
    if command.words[1] == "train":
        for path in map(Path, command.values("--resume")):
            _write_run(path, root, finished=False)
        for name in command.values("--out"):
            shutil.rmtree(f"{name}-trained", ignore_errors=True)
    os.utime(root / NEWEST / "last.pt")
    for path in map(Path, command.arguments):
        if path.suffix in (".png", ".jpg"):
            _write_image(path)
        elif command.words[1] == "decode":
            _write_image(Path("some.png"))
            _run("irevnet", "encode", "some.png", "-o", path)
        elif command.words[1] == "apply-probes":
            _run("irevnet-analyze", "depth-probe", "--depths", "2", "--C", "0.01", "--save-probes", "--out", "probed")
            shutil.copy("probed/depth-probe.probes.npz", path)
        elif command.words[1] == "reproduce":
            _run("irevnet-analyze", "report", root / NEWEST, "--out", path)
    for path in map(Path, command.values("--export")):
        path.unlink(missing_ok=True)
    for path in map(Path, command.values("--features", "--labels")):
        if not path.exists():
            _write_features(path)
    for name in command.values("--data"):
        if ".py:" in name:
            _write_code(name)
    for path in map(Path, command.values("--pairs")):
        for name in ("a.png", "b.png"):
            _write_image(path.parent / name)
        path.write_text("a,b\na.png,b.png\n")


def _run(group: str, *words: str | Path) -> Result:
    return CliRunner().invoke(GROUPS[group], list(map(str, words)))


def _shortened(words: tuple[str, ...]) -> list[str]:
    _, command, *rest = words
    for at, (option, value) in enumerate(pairwise(rest), start=1):
        if option in SHORT and "." not in value:  # classes may be named by a file
            rest[at] = re.sub(r"\d+", lambda number: str(min(int(number[0]), SHORT[option])), value)  # noqa: B023
        if (command, option) == ("train", "--out"):
            rest[at] += "-trained"  # there may be a stand-in
    added = ADDED.get(command, []) + (["--image-size", "32"] if any("torchvision:" in word for word in rest) else [])
    for option, value in zip(added[::2], added[1::2]):
        begun = option == "-b" and "--resume" in rest
        if option not in rest and not begun and not (option == "--max-steps" and "--dry-run" in rest):
            rest += [option, value]
    return [command, *rest]


def test_pages_show_every_command():
    shown = {command.words[:2] for command in COMMANDS}
    assert {(name, command) for name, group in GROUPS.items() for command in group.commands} <= shown


def test_slow_commands_take_their_options():
    for command in SLOW:
        group, name, *words = command.words
        GROUPS[group].commands[name].make_context(name, words)


@pytest.mark.usefixtures("small_world")
@pytest.mark.parametrize(
    "command",
    [pytest.param(each, marks=[pytest.mark.slow] if each in SLOW else []) for each in COMMANDS],
    ids=lambda command: f"{command.place} {' '.join(command.words[:2])}",
)
def test_command_of_pages_runs(command, workplace, monkeypatch):
    folder = workplace / command.folder
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(folder)
    _prepare(command, workplace)
    words = _shortened(command.words)
    result = _run(command.words[0], *words)
    assert result.exit_code == 0, f"{' '.join(command.words)}\n{result.output}"


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if _fences(page, "python")],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_python_of_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for start, block in _fences(page, "python"):
        for run in map(Path, re.findall(r'"(runs/[\w-]+)"', block)):
            for folder in (run, Path("docs/results") / run.name):
                folder.mkdir(parents=True)
            _write_checkpoint(run / "last.pt")
        exec(compile("\n" * (start - 1) + block, page, "exec"), names)


@functools.cache
def _anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_images_scripts_and_targets_are_there(page):
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(((?!https?:)[^)]*)\)", text)
    for path, _, anchor in (target.partition("#") for target in targets):
        goal = page.parent / path if path else page
        assert goal.exists(), f"{page.name} leads to {path}"
        assert not anchor or anchor in _anchors(goal), f"{page.name} leads to {path}#{anchor}"
    for script in re.findall(r"benchmarks/\w+\.py", text):
        assert (ROOT / script).is_file(), f"{page.name} has {script}"
    code = "\n".join([*(block for _, block in _fences(page, "")), *re.findall(r"`([^`\n]+)`", text)])
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make ([a-z-]+)", code, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page.name} has make {target}"


SOURCES = [
    ROOT / "cli.py",
    *(path for room in ("irevnet", "analysis", "figures") for path in (ROOT / room).rglob("*.py")),
]


def _dotted_names(text: str) -> set[str]:
    """Those of the toolkit at the beginning of what stands in backticks, but not the names of files."""
    names = re.findall(r"`((?:irevnet|analysis|figures|cli)(?:\.\w+)+)[^`\n]*`", text)
    return {name for name in names if not name.endswith(".py")}


def _is_there(name: str) -> bool:
    """A module, or an attribute or field of what is in one."""
    owner, _, field = name.rpartition(".")
    try:
        pkgutil.resolve_name(name)
    except AttributeError:
        return (
            "." in owner and _is_there(owner) and field in vars(pkgutil.resolve_name(owner)).get("__annotations__", {})
        )
    return True


def test_dotted_names_in_text_are_there():
    texts = {path: path.read_text(encoding="utf-8") for path in (*PAGES, *SOURCES)}
    assert not [(path, name) for path, text in texts.items() for name in _dotted_names(text) if not _is_there(name)]


def test_missing_dotted_name_is_found():
    text = "`irevnet.training.fit`, `irevnet.TrainConfig.epochs`, `irevnet.list_models()`, `irevnet train`, `cli.py`"
    names = _dotted_names(text + ", `analysis.gone`, `analysis.results <- figures`, `irevnet.TrainConfig.gone`")
    missing = {"irevnet.training.fit", "analysis.gone", "irevnet.TrainConfig.gone"}
    assert names == {"irevnet.TrainConfig.epochs", "irevnet.list_models", "analysis.results"} | missing
    assert {name for name in names if not _is_there(name)} == missing


@pytest.mark.slow
def test_api_reference_is_written_without_warning(tmp_path):
    tools = [f"BIN={Path(sys.executable).parent}", f"API={tmp_path}"]
    make = ["make", "-C", ROOT, "--old-file=.venv/ready", "docs", *tools]
    done = subprocess.run(make, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = (done.stdout + done.stderr).splitlines()
    assert not [line for line in lines if "Warn" in line and "'lscpu'" not in line]  # which torch 2.6 asks for
    expected = {
        "irevnet.html": ["build_model", "load_checkpoint", "IRevNetConfig"],
        "irevnet/models/irevnet.html": ["range_residual", "inverse"],
        "analysis/probes/svm.html": ["fit_one_vs_rest", "jaxtyping.Float[ndarray, "],
        "analysis/results.html": ["PCASweepResult", "SpectrumResult"],
        "figures.html": ["plot", "build_report"],
        "figures/studies/depth_probe.html": ["FIGURE", "chart"],
    }
    for page, names in expected.items():
        text = re.sub(r"<[^>]*>", "", (tmp_path / page).read_text(encoding="utf-8")).replace("&#39;", "'")
        assert all(name in text for name in names), page
        assert str(ROOT) not in text
