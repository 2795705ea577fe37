"""The rules of the layout, read from the sources; each is also run on sources that break it."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simsiam_keras.family import FAMILY

ROOT = Path(__file__).parents[1]
PACKAGE = "simsiam_keras"

# Imports go from a later line to an earlier or the same one, and never in a circle.
LEVELS = [
    {"errors", "version", "family", "flagfile", "locks", "streams"},
    {"options"},
    {"config"},
    {"interrupts", "settings", "checks"},
    {
        "backbones",
        "encoders",
        "heads",
        "losses",
        "mining",
        "optimizers",
        "schedules",
        "sinkhorn",
        "torch_names",
        "torch_weights",
    },
    {
        "methods",
        "data",
        "augment",
        "callbacks",
        "diagnose",
        "verdicts",
        "advice",
        "quality",
        "cards",
        "export",
        "saved_model",
        "devices",
        "distribute",
        "moments",
        "passes",
        "board",
        "checkpoints",
        "progress",
        "projector",
        "runs",
        "plots",
        "targets",
    },
    {"evaluation"},
    {
        "crops",
        "monitors",
        "views",
        "resident",
        "inputs",
        "plateau",
        "preflight",
        "start",
        "whitening",
        "worth",
    },
    {"best", "feeds"},
    {"build"},
    {"train"},
    {"commands", "probes", "study"},
    {"few"},
    {"classifier", "formats", "gallery"},
    {"explore"},
    {"__main__", "__init__", "registration"},
]
TENSORFLOW = {"tensorflow", "tensorflow_datasets"}
TENSORFLOW_AT_THE_TOP = {"augment/host.py", "augment/host_ops.py"}
TENSORFLOW_SOMEWHERE = TENSORFLOW_AT_THE_TOP | {
    "devices.py",
    "distribute.py",
    "export.py",
    "saved_model.py",
    "formats/graphs.py",  # whose formats are TensorFlow's own, or are made of its graphs
    "formats/preprocessing.py",
}  # and data/
HEAVY = {"keras", "keras_cv", "jax", "torch", "sklearn", "matplotlib", "scipy", "PIL", *TENSORFLOW}


def sources():
    folder = ROOT / PACKAGE
    return {
        path.relative_to(folder).as_posix(): path.read_text("utf-8")
        for path in sorted(folder.rglob("*.py"))
    }


def module_of(path):
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(source, modules=()):
    """(module, at the top level of the file) of every import; `from p import m` gives `p.m`."""

    def visit(node, top):
        for child in ast.iter_child_nodes(node):
            inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            if isinstance(child, ast.Import):
                yield from ((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = "." * child.level + (child.module or "")
                for alias in child.names:
                    full = f"{base}.{alias.name}"
                    yield (full if full.removeprefix(f"{PACKAGE}.") in modules else base), top
            yield from visit(child, top and not inside)

    return list(visit(ast.parse(source), True))


def local_imports(files):
    """{module: modules of the package that it imports}, both without the package's name."""
    modules = {module_of(path) for path in files}
    graph = {}
    for path, source in files.items():
        found = {name for name, _ in imports(source, modules)}
        graph[module_of(path)] = {
            name.removeprefix(f"{PACKAGE}.") if name != PACKAGE else "__init__"
            for name in found
            if name == PACKAGE or name.startswith(f"{PACKAGE}.")
        }
    return graph


def level(module):
    for i, components in enumerate(LEVELS):
        if module.split(".")[0] in components:
            return i
    return None


def imports_point_one_way(files):
    graph = local_imports(files)
    for module, targets in graph.items():
        if level(module) is None:
            yield f"{module} has no place in LEVELS"
            continue
        for target in targets:
            if level(target) is None or level(target) > level(module):
                yield f"{module} imports {target}"


def no_circles(files):
    graph = local_imports(files)
    done = set()

    def walk(module, path):
        if module in path:
            yield " -> ".join([*path[path.index(module) :], module])
        elif module not in done:
            for target in graph.get(module, ()):
                # `__init__` of a folder imports its modules, which may import each other.
                yield from walk(target, [*path, module])
            done.add(module)

    for module in graph:
        yield from walk(module, [])


ABLATIONS = {"methods.ablations": ("methods.simsiam",)}  # of which they are


def methods_stand_alone(files):
    for module, targets in local_imports(files).items():
        if module.startswith("methods."):
            for target in targets:
                allowed = {"methods.base", *ABLATIONS.get(module, ())}
                if target.startswith("methods") and target not in allowed:
                    yield f"{module} imports {target}"


def roots(source):
    return [(name.split(".")[0], top) for name, top in imports(source)]


def tensorflow_stays_where_it_is(files):
    for path, source in files.items():
        for root, top in roots(source):
            if root not in TENSORFLOW:
                continue
            if path not in TENSORFLOW_SOMEWHERE and not path.startswith("data/"):
                yield f"{path} imports {root}"
            elif top and path not in TENSORFLOW_AT_THE_TOP:
                yield f"{path} imports {root} at the top level"


def keras_cv_only_in_host(files):
    for path, source in files.items():
        if path != "augment/host.py" and "keras_cv" in {root for root, _ in roots(source)}:
            yield f"{path} imports keras_cv"


def flags_only_at_the_door(files):
    for path, source in files.items():
        if path in ("config.py", "flagfile.py", "__main__.py"):
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import) and any(
                a.name.startswith("absl.flags") for a in node.names
            ):
                yield f"{path}:{node.lineno} imports absl.flags"
            if isinstance(node, ast.ImportFrom):
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                if any(n.startswith(("absl.flags", "absl.app")) for n in names):
                    yield f"{path}:{node.lineno} imports absl.flags"
            if isinstance(node, ast.Name) and node.id == "FLAGS":
                yield f"{path}:{node.lineno} reads FLAGS"


def relative_imports(files):
    for path, source in files.items():
        for name, _ in imports(source):
            if name.startswith("."):
                yield f"{path} imports {name}"


def asserts(files):
    for path, source in files.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Assert):
                yield f"{path}:{node.lineno} asserts"


def text_files_are_utf8(files):
    """No file is written or read in the encoding of the locale."""
    for path, source in files.items():
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func).split(".")[-1]
            named = any(keyword.arg == "encoding" for keyword in node.keywords)
            mode = ast.unparse(node.args[1]) if len(node.args) > 1 else "'r'"
            text = {
                "open": ast.unparse(node.func) == "open" and "b" not in mode,
                "read_text": not node.args,
                "write_text": len(node.args) < 2,
            }
            if text.get(name) and not named:
                yield f"{path}:{node.lineno} {ast.unparse(node)[:60]}"


def stop_gradient_statements(source):
    """Line numbers of the smallest statements that call `stop_gradient`."""
    lines = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt) and not hasattr(node, "body"):
            for call in ast.walk(node):
                if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("stop_gradient"):
                    lines.add(node.lineno)
    return sorted(lines)


# Two things are constants in SwAV: the codes, and the prototypes of the first epoch.
STOP_GRADIENTS = {"methods/swav.py": 2}


def stop_gradient_is_written_once_in_a_method(files):
    for path, source in files.items():
        lines = stop_gradient_statements(source)
        if path.startswith("methods/"):  # that of the base is of a frozen encoder
            if len(lines) > STOP_GRADIENTS.get(path, 1) or (
                path == "methods/simsiam.py" and len(lines) != 1
            ):
                yield f"{path} calls stop_gradient on lines {lines}"
        elif lines:
            yield f"{path} calls stop_gradient on lines {lines}"


def train_step_is_written_once(files):
    found = [
        f"{path}:{node.lineno}"
        for path, source in files.items()
        if path.startswith("methods/")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.name == "train_step"
    ]
    if len(found) != 1 or not found[0].startswith("methods/base.py"):
        yield f"train_step in {found}"


def is_a_method(node):
    """Whether an expression is a method's name: `cfg.method`, `flags["method"]`, `"byol"`, ..."""
    if isinstance(node, ast.Constant):
        return node.value in FAMILY
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        return any(map(is_a_method, node.elts))
    if isinstance(node, (ast.Name, ast.Attribute)):
        return ast.unparse(node).split(".")[-1] == "method"
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and node.slice.value == "method"
    if isinstance(node, ast.Call):  # flags.get("method"), run.flag("method", "simsiam")
        return any(isinstance(x, ast.Constant) and x.value == "method" for x in node.args)
    return False


def no_code_asks_which_method(files):
    """Nobody compares a method's name or looks for its class: `family` says what differs."""
    classes = {member.path.rsplit(".", 1)[1] for member in FAMILY.values()}
    for path, source in files.items():
        for node in ast.walk(ast.parse(source)):
            asks = False
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                # Whether something is a method at all may be asked of the whole family.
                whole = any(ast.unparse(side).split(".")[-1] == "FAMILY" for side in sides)
                asks = any(map(is_a_method, sides)) and not whole
            elif isinstance(node, ast.Match):
                asks = is_a_method(node.subject)
            elif isinstance(node, ast.Dict) and path != "family.py":
                asks = any(
                    key is not None and is_a_method(key)
                    for key in node.keys
                    if not isinstance(key, (ast.Attribute, ast.Name))
                )
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
                named = {
                    ast.unparse(x).split(".")[-1]
                    for x in ast.walk(node.args[1])
                    if isinstance(x, (ast.Name, ast.Attribute))
                }
                asks = bool(named & classes)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                prefix = node.func.attr in ("startswith", "endswith", "__eq__")
                asks = prefix and is_a_method(node.func.value)
            if asks:
                yield f"{path}:{node.lineno} {ast.unparse(node)[:60]}"


# The package's longest files are tables.
TABLES = {"options.py", "family.py"}


def files_are_short(files):
    for path, source in files.items():
        lines = len(source.splitlines())
        if lines > 350 and path not in TABLES:
            yield f"{path} has {lines} lines"


def no_literal_is_unpacked_into_another(files):
    for path, source in files.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Starred) and isinstance(node.value, (ast.Tuple, ast.List)):
                yield f"{path}:{node.lineno} {ast.unparse(node)[:60]}"


BROKEN = [
    (imports_point_one_way, "losses.py", "from simsiam_keras import heads, methods"),
    (imports_point_one_way, "losses.py", "from simsiam_keras.methods.base import output_std"),
    (imports_point_one_way, "heads.py", "def f():\n    import simsiam_keras.train"),
    (imports_point_one_way, "config.py", "from simsiam_keras import runs"),
    (imports_point_one_way, "train.py", "from simsiam_keras import commands"),
    (imports_point_one_way, "build.py", "from simsiam_keras.train import pretrain"),
    (imports_point_one_way, "helpers.py", "import math"),
    (no_circles, "heads.py", "from simsiam_keras import encoders"),
    (no_circles, "runs.py", "def f():\n    from simsiam_keras import export"),
    (methods_stand_alone, "methods/byol.py", "from simsiam_keras.methods.simsiam import SimSiam"),
    (methods_stand_alone, "methods/byol.py", "from simsiam_keras.methods import swav"),
    (methods_stand_alone, "methods/swav.py", "from simsiam_keras.methods import ablations"),
    (tensorflow_stays_where_it_is, "losses.py", "def f():\n    import tensorflow as tf"),
    (tensorflow_stays_where_it_is, "data/pipeline.py", "import tensorflow as tf"),
    (
        tensorflow_stays_where_it_is,
        "data/tfds.py",
        "try:\n    import tensorflow_datasets\nfinally: 0",
    ),
    (tensorflow_stays_where_it_is, "export.py", "from tensorflow import saved_model"),
    (tensorflow_stays_where_it_is, "methods/byol.py", "import tensorflow.math"),
    (tensorflow_stays_where_it_is, "build.py", "def f():\n    import tensorflow"),
    (keras_cv_only_in_host, "augment/device.py", "def f():\n    from keras_cv import layers"),
    (flags_only_at_the_door, "train.py", "from absl import flags"),
    (flags_only_at_the_door, "train.py", "import absl.flags"),
    (flags_only_at_the_door, "methods/byol.py", "from simsiam_keras.config import FLAGS\nFLAGS.x"),
    (relative_imports, "train.py", "from . import losses"),
    (asserts, "train.py", "def f(x):\n    assert x"),
    (stop_gradient_is_written_once_in_a_method, "losses.py", "z = ops.stop_gradient(z)"),
    (
        stop_gradient_is_written_once_in_a_method,
        "heads.py",
        "def f(z):\n    return stop_gradient(z)",
    ),
    (
        stop_gradient_is_written_once_in_a_method,
        "methods/base.py",
        "ops.stop_gradient(z)\nops.stop_gradient(p)",
    ),
    (stop_gradient_is_written_once_in_a_method, "methods/simsiam.py", "z = 1"),
    (
        stop_gradient_is_written_once_in_a_method,
        "methods/byol.py",
        "def f(z):\n    z = ops.stop_gradient(z)\n    return ops.stop_gradient(z)",
    ),
    (
        stop_gradient_is_written_once_in_a_method,
        "methods/swav.py",
        "z = stop_gradient(z)\nq = stop_gradient(q)\nc = stop_gradient(c)",
    ),
    (train_step_is_written_once, "methods/byol.py", "class A:\n    def train_step(self): 0"),
    (train_step_is_written_once, "methods/base.py", "class A: 0"),
    # The eight places that there were, and other spellings.
    (
        no_code_asks_which_method,
        "diagnose.py",
        'def f(run):\n    return run.flag("method", "") == "siamese_triplet"',
    ),
    (
        no_code_asks_which_method,
        "diagnose.py",
        'def f(run):\n    return run.flag("method", "simsiam") == "simsiam"',
    ),
    (no_code_asks_which_method, "train.py", "if cfg.method in config.SUPERVISED: 0"),
    (no_code_asks_which_method, "train.py", "x = cfg.method in SUPERVISED and labels is None"),
    (
        no_code_asks_which_method,
        "config.py",
        "for flag, methods in ONLY_OF.items():\n    if cfg.method not in methods: 0",
    ),
    (no_code_asks_which_method, "config.py", "if cfg.method in NEEDS_OTHERS and n < 2: 0"),
    (
        no_code_asks_which_method,
        "config.py",
        'def f(method):\n    return EXPERIMENTS if method in ONLY_OF["x"] else ()',
    ),
    (no_code_asks_which_method, "study/report.py", 'm = "" if cfg.method in ONLY_OF["x"] else 1'),
    (no_code_asks_which_method, "train.py", "if config.method == 'byol': 0"),
    (no_code_asks_which_method, "train.py", "x = 1 if 'byol' != name else 2"),
    (no_code_asks_which_method, "train.py", "x = name in ('swav', 'simclr')"),
    (no_code_asks_which_method, "train.py", "x = flags['method'] == y"),
    (no_code_asks_which_method, "train.py", "x = {'byol': 1, 'swav': 2}[name]"),
    (no_code_asks_which_method, "train.py", "match cfg.method:\n    case 'byol': 0"),
    (no_code_asks_which_method, "train.py", "x = isinstance(model, (BYOL, SwAV))"),
    (no_code_asks_which_method, "train.py", "x = cfg.method.startswith('siamese')"),
    (text_files_are_utf8, "train.py", "x = open('a')"),
    (text_files_are_utf8, "train.py", "x = open('a', 'a')"),
    (text_files_are_utf8, "train.py", "x = path.read_text(errors='replace')"),
    (text_files_are_utf8, "train.py", "path.write_text('a')"),
    (files_are_short, "train.py", "x = 1\n" * 351),
    (no_literal_is_unpacked_into_another, "train.py", "x = [*('a', 'b'), *('c',)]"),
]
RULES = sorted({rule for rule, _, _ in BROKEN}, key=lambda rule: rule.__name__)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule):
    assert list(rule(sources())) == []


@pytest.mark.parametrize("rule, path, source", BROKEN)
def test_the_rule_is_seen_to_be_broken(rule, path, source):
    # Other files stay as they are: a circle or a second train_step needs them.
    before = set(rule(sources()))
    assert set(rule({**sources(), path: source})) - before


def python(code, **environment):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_command_line_starts_without_anything_heavy():
    done = python(
        "import sys, simsiam_keras.__main__, simsiam_keras.config; "
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


WITHOUT_TENSORFLOW = """
import importlib, importlib.machinery, pathlib, sys, numpy as np
class Absent:  # found, so that those who only look go on, and not importable
    def find_spec(self, name, path=None, target=None):
        if name in ('tensorflow', 'tensorflow_datasets', 'keras_cv'):
            return importlib.machinery.ModuleSpec(name, self)
    def create_module(self, spec):
        raise ModuleNotFoundError(spec.name, name=spec.name)
    def exec_module(self, module):
        pass
sys.meta_path.insert(0, Absent())
import simsiam_keras
for path in sorted(pathlib.Path('simsiam_keras').rglob('*.py')):
    name = '.'.join(path.with_suffix('').parts).removesuffix('.__init__')
    if not name.startswith('simsiam_keras.augment.host') and name != 'simsiam_keras.__main__':
        importlib.import_module(name)
from simsiam_keras import encoders, heads
from simsiam_keras.methods.simsiam import SimSiam
model = SimSiam(encoders.resnet10((16, 16, 3), width=2), heads.projector(8))
model.compile('sgd')
x = np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3)).astype('float32')
print(model.fit((x, x[:, ::-1]), verbose=0).history['loss'][0])
try:
    import simsiam_keras.augment.host
except ImportError:
    print('host augmentation needs TensorFlow')
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_everything_but_host_augmentation_works_without_tensorflow(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    done = python(WITHOUT_TENSORFLOW, KERAS_BACKEND=backend)
    assert done.returncode == 0, done.stderr[-3000:]
    loss, host = done.stdout.strip().splitlines()
    assert -1 <= float(loss) <= 1
    assert host == "host augmentation needs TensorFlow"
