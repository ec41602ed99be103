"""Imports go down only, heavy packages load on use, and nothing runs code that it reads."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import exsearch
from code_lines import code_lines

ROOT = Path(exsearch.__file__).parent
# What is not named here is an entry: it may import everything, and only entries import it.
LAYERS = {
    "errors": -2,  # the floor that everything stands on
    "json_files": -1,
    "records": 0,
    "config": 0,
    "hosts": 0,
    "runs": 0,
    "plugins": 0,
    "progress": 0,
    "terminal": 0,
    "halves": 0,
    "hardware": 0,
    "http_client": 0,
    "http_server": 0,
    "trajectories": 1,
    "data": 1,
    "retrievers": 1,
    "methods": 1,
    "models": 2,
    "engines": 3,
    "agent": 4,
    "evaluation": 5,
    "training": 6,
    "diagnosis": 7,
}
ENTRY = 8
# Only these may need torch to be imported; the core installs without it.
TORCH = {
    "exsearch.engines.local.batching",
    "exsearch.engines.local.cache",
    "exsearch.engines.local.engine",
    "exsearch.engines.local.sampling",
    "exsearch.engines.local.scoring",
    "exsearch.engines.local.trial",
    "exsearch.engines.vllm.engine",
    "exsearch.models.attention",
    "exsearch.models.folder",
    "exsearch.models.linear",
    "exsearch.models.loading",
    "exsearch.models.lora",
    "exsearch.models.trial",
    "exsearch.training.checkpoint",
    "exsearch.training.drill",
    "exsearch.training.loop",
    "exsearch.training.m_step",
    "exsearch.training.reranker_steps",
}
HEAVY = (
    *("torch", "transformers", "tokenizers", "accelerate", "peft", "vllm", "ray"),
    *("sentence_transformers", "faiss", "bm25s"),
)
# Only these may need the packages of an extra for a kind of retriever.
EXTRAS = {
    "exsearch.judging.agreement",
    "exsearch.judging.summary",
    "exsearch.retrievers.servers.elasticsearch",
    "exsearch.retrievers.servers.milvus",
    "exsearch.retrievers.servers.opensearch",
    "exsearch.retrievers.servers.postgres",
    "exsearch.retrievers.servers.qdrant",
    "exsearch.retrievers.serving.app",
    "exsearch.retrievers.serving.metrics",
    "exsearch.retrievers.serving.worker",
    "exsearch.serving.app",
    "exsearch.serving.faces.ag_ui",
    "exsearch.serving.faces.chat",
    "exsearch.serving.faces.mcp",
    "exsearch.serving.faces.models",
    "exsearch.serving.faces.page",
    "exsearch.serving.faces.responses",
    "exsearch.serving.faces.responses_items",
    "exsearch.serving.faces.spans",
    "exsearch.serving.faces.ui_stream",
    "exsearch.serving.gate",
    "exsearch.serving.judging",
    "exsearch.serving.links",
    "exsearch.serving.live",
    "exsearch.serving.mcp_http",
    "exsearch.serving.mcp_stdio",
    "exsearch.serving.metrics",
    "exsearch.serving.refusals",
    "exsearch.serving.requests",
    "exsearch.serving.saved",
    "exsearch.serving.server",
    "exsearch.serving.streams",
}
OPTIONAL = (
    *("ag_ui", "fastapi", "mcp", "opentelemetry", "prometheus_client", "starlette", "uvicorn"),
    *(
        "elasticsearch",
        "nltk",
        "opensearchpy",
        "psycopg",
        "pymilvus",
        "qdrant_client",
        "matplotlib",
    ),
)


def module_name(file):
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(f): ast.parse(f.read_text(encoding="utf-8")) for f in ROOT.rglob("*.py")}


def top(module):
    """`exsearch.data.corpus` -> `data`; the package itself is an entry of its own."""
    return module.split(".")[1] if "." in module else "exsearch"


def imported(tree):
    """Every module of the package that a tree imports, at any depth, also for types only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            base = node.module or ""
            inner = [f"{base}.{alias.name}" for alias in node.names]
            found = [i if i in MODULES else base for i in inner]
        else:
            continue
        yield from (f for f in found if f.split(".")[0] == "exsearch")


def allowed(importer, target):
    here, there = LAYERS.get(importer, ENTRY), LAYERS.get(target, ENTRY)
    if importer == target:
        return True
    if here == ENTRY and there == ENTRY:
        return target != "cli" or importer == "__main__"
    return there < here


EDGES = sorted((name, target) for name, tree in MODULES.items() for target in imported(tree))


def test_the_rules_themselves():
    assert allowed("runs", "errors")
    assert not allowed("errors", "runs")
    assert not allowed("records", "config")
    assert not allowed("methods", "retrievers")
    assert not allowed("methods", "engines")
    assert not allowed("models", "engines")
    assert allowed("engines", "models")
    assert not allowed("engines", "agent")
    assert not allowed("agent", "evaluation")
    assert not allowed("evaluation", "training")
    assert not allowed("training", "jobs")
    assert not allowed("jobs", "cli")
    assert not allowed("doctor", "cli")
    assert allowed("cli", "doctor")


def test_imports_go_down_only():
    assert len(EDGES) > 100
    wrong = [edge for edge in EDGES if not allowed(*map(top, edge))]
    assert not wrong, f"these imports go up or sideways: {wrong}"


def importers(target, *names):
    """The modules that import one of these names from a module, at any depth."""
    return {
        module
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and node.module == target
        and any(alias.name in names for alias in node.names)
    }


def calls(name):
    """The modules that call a name."""
    return [
        module
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == name
    ]


def test_trajectory_files_are_parsed_in_one_module():
    assert importers("exsearch.records", "from_json") == {"exsearch.trajectories"}
    assert importers("exsearch.records", "to_json") == {"exsearch.trajectories"}


def test_episodes_are_built_in_one_place():
    assert calls("Episode") == ["exsearch.agent.episode"]


def test_few_know_the_settings_of_the_searcher():
    outside = importers("exsearch.methods.searcher", "SearcherMethod")
    assert len({module for module in outside if top(module) != "methods"}) <= 3


def test_training_imports_no_engine():
    """Only what every engine has in common: the protocol, and a model's and a server's settings."""
    common = {"exsearch.engines.base", "exsearch.engines.config", "exsearch.engines.server.config"}
    used = {t for n, t in EDGES if top(n) == "training" and top(t) == "engines"}
    assert used <= common


def test_the_modules_are_counted_as_make_does():
    text = '"""A.\n\nB."""\n\nx = (  # why\n    1,\n)\n\n\ndef f():\n    """C."""\n    return x\n'
    assert code_lines(text) == 5


def test_entries_do_not_import_in_a_circle():
    below = {
        name: {t for n, t in EDGES if n == name and t != name and LAYERS.get(top(t)) is None}
        for name in MODULES
        if LAYERS.get(top(name)) is None
    }
    while leaves := {name for name, targets in below.items() if not targets & below.keys()}:
        for leaf in leaves:
            del below[leaf]
    assert not below, f"these modules import one another: {sorted(below)}"


def run(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("statement", ["import exsearch", "import exsearch.cli"])
def test_nothing_heavy_loads_before_it_is_used(statement):
    loaded = run(f"import json, sys; {statement}; print(json.dumps(list(sys.modules)))")
    assert "exsearch" in loaded
    assert not {*HEAVY, *OPTIONAL, "pydantic", "numpy"} & set(loaded)


def test_the_help_of_the_command_loads_nothing_heavy():
    code = """if True:
        import contextlib, io, json, sys
        sys.argv = ["exsearch", "--help"]
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
            from exsearch.cli import main
            main()
        assert "Usage" in out.getvalue(), out.getvalue()
        print(json.dumps(list(sys.modules)))
    """
    assert not {*HEAVY, *OPTIONAL, "pydantic", "numpy"} & set(run(code))


def test_the_core_works_without_an_extra():
    """Every module but those named above is imported where the extras' packages are missing."""
    names = sorted(MODULES.keys() - TORCH - EXTRAS - {"exsearch.__main__"})
    code = f"""if True:
        import importlib, json, sys
        for heavy in {HEAVY[:-1] + OPTIONAL!r}:
            sys.modules[heavy] = None
        failed = {{}}
        for name in {names!r}:
            try:
                importlib.import_module(name)
            except ImportError as error:
                failed[name] = str(error)
        print(json.dumps(failed))
    """
    assert run(code) == {}


def test_every_public_name_exists():
    for name in exsearch.__all__:
        assert getattr(exsearch, name) is not None
    assert set(dir(exsearch)) == set(exsearch.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = exsearch.nothing


FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}


def suspicious(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from {a.name.split(".")[0] for a in node.names} & FORBIDDEN_MODULES
        elif isinstance(node, ast.ImportFrom):
            yield from {(node.module or "").split(".")[0]} & FORBIDDEN_MODULES
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
                yield node.func.id
            if ast.unparse(node.func) in ("torch.load", "np.load", "numpy.load", "os.system"):
                keywords = {k.arg: k.value for k in node.keywords}
                plain = keywords.get("allow_pickle")
                if not (isinstance(plain, ast.Constant) and plain.value is False):
                    yield ast.unparse(node.func)
            for keyword in node.keywords:
                if keyword.arg in ("trust_remote_code", "shell") and not (
                    isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                ):
                    yield keyword.arg


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "eval('1')",
        "torch.load(f)",
        "np.load(f)",
        "np.load(f, allow_pickle=True)",
        "f(trust_remote_code=True)",
        "run('x', shell=flag)",
    ],
)
def test_the_search_for_code_that_runs_code_finds_it(code):
    assert list(suspicious(ast.parse(code)))


def test_nothing_runs_code_that_it_reads():
    found = {name: list(suspicious(tree)) for name, tree in MODULES.items()}
    assert not {name: what for name, what in found.items() if what}
