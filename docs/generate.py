"""Writes the pages of the reference that come from the code: settings, commands, API, and a page for each kept run."""

import ast
import json
import re
import tokenize
from pathlib import Path

DOCS = Path(__file__).resolve().parent
REPOSITORY = DOCS.parent
PACKAGE = REPOSITORY / "brainseg_jax"


def write_pages() -> None:
    """Writes all generated pages; a file whose text is the same is left alone, for Sphinx's cache."""
    _write(DOCS / "reference" / "generated" / "configuration.md", configuration_tables())
    _write(DOCS / "reference" / "generated" / "commands.md", command_tables())
    pages = {**api_pages(), **run_pages()}
    for path, text in pages.items():
        _write(path, text)
    for folder in (DOCS / "reference" / "api", DOCS / "runs"):
        for path in {*folder.glob("*.rst"), *folder.glob("*.md")} - pages.keys():
            path.unlink()


def configuration_tables() -> str:
    """Returns a table for each section of the config: field, default, and the comment beside it."""
    path = PACKAGE / "config.py"
    with path.open("rb") as file:
        comments = {
            token.start[0]: token.string.lstrip("# ")
            for token in tokenize.tokenize(file.readline)
            if token.type == tokenize.COMMENT
        }
    (function,) = (
        node
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == "get_config"
    )
    notes: dict[str, str] = {}
    fields: dict[str, list[tuple[str, str, str]]] = {}
    for node in function.body:
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute)):
            continue
        name = ast.unparse(node.targets[0]).removeprefix("config.")
        comment = comments.get(node.end_lineno or 0, "")
        if isinstance(node.value, ast.Call):  # a section
            fields[name] = []
            notes[name] = comment or comments.get(node.lineno - 1, "")
        else:
            section = name.rpartition(".")[0]
            fields.setdefault(section, []).append((name, ast.unparse(node.value), comment))
    parts = []
    for section, rows in fields.items():
        parts.append(f"## {section or 'The run'}\n")
        if note := notes.get(section, ""):
            parts.append(f"{note[0].upper()}{note[1:].rstrip('.')}.\n")
        parts.append(_table(("Field", "Default", "Meaning"), [(f"`{n}`", f"`{v}`", _cell(c)) for n, v, c in rows]))
    return "\n".join(parts)


def command_tables() -> str:
    """Returns, for each script, its description and a table of its flags."""
    shared = _flags(PACKAGE / "cli.py")
    parts = []
    for path in sorted((REPOSITORY / "scripts").glob("*.py")):
        text = path.read_text()
        description = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0].replace("\n", " ")
        flags = _flags(path) + (shared if "define_postprocessing_flags" in text else [])
        parts.append(f"## {path.name}\n\n{description}\n")
        parts.append(_table(("Flag", "Default", "Meaning"), flags))
    return "\n".join(parts)


def _flags(path: Path) -> list[tuple[str, str, str]]:
    rows = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if not node.func.attr.startswith("DEFINE_"):
            continue
        name, default, *rest = (ast.literal_eval(argument) for argument in node.args[:3])
        if node.func.attr == "DEFINE_alias":
            default, rest = "", [f"The same as `--{default}`."]
        (meaning,) = rest
        shown = "" if default in (None, "", []) else f"`{default}`"
        rows.append((node.lineno, f"`--{name}`", shown, _cell(meaning)))
    return [row[1:] for row in sorted(rows)]


def api_pages() -> dict[Path, str]:
    """Returns a page for each folder of the package and one for its top-level modules, read from the docstrings."""
    folder = DOCS / "reference" / "api"
    top = [path.stem for path in sorted(PACKAGE.glob("*.py")) if path.stem != "__init__"]
    pages = {folder / "top_level.rst": _api_page("Top-level modules", [f"brainseg_jax.{name}" for name in top])}
    names = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    for name in names:
        files = sorted((PACKAGE / name).rglob("*.py"), key=lambda path: (path.parent, path.stem != "__init__", path))
        modules = [".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in files]
        modules = [module.removesuffix(".__init__") for module in modules]
        pages[folder / f"{name}.rst"] = _api_page(name, modules)
    listed = "\n".join(f"   {name}" for name in [*names, "top_level"])
    (public,) = (
        node.value
        for node in ast.parse((PACKAGE / "__init__.py").read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    exported = ", ".join(f"`{name}`" for name in ast.literal_eval(public))
    introduction = (
        f"The public names, which `from brainseg_jax import …` gives: {exported}.\n\n"
        "What most programs need: :func:`~brainseg_jax.config.load_config`,\n"
        ":func:`~brainseg_jax.training.loop.train_and_evaluate`,\n"
        ":class:`~brainseg_jax.inference.predictor.Predictor`. The pages follow the folders of the package."
    )
    pages[folder / "index.rst"] = f"{_title('API')}\n{introduction}\n\n.. toctree::\n   :maxdepth: 1\n\n{listed}\n"
    return pages


def _api_page(title: str, modules: list[str]) -> str:
    sections = []
    for module in modules:
        short = module.removeprefix("brainseg_jax.")
        heading = f"{short}\n{'-' * len(short)}\n\n" if short != title else ""
        sections.append(f"{heading}.. automodule:: {module}\n")
    return f"{_title(title)}\n" + "\n".join(sections)


def _title(text: str) -> str:
    return f"{text}\n{'=' * len(text)}\n"


def run_pages() -> dict[Path, str]:
    """Returns a page for each run in docs/results: its figures, its settings and its files."""
    pages = {}
    for config in sorted((DOCS / "results").glob("*/config.json")):
        run = config.parent
        parts = [f"# {run.name}\n"]
        for name, caption in (
            ("scores", "Dice by class and tumour size, and calibration"),
            ("learning_curves", "Learning curves"),
            ("published_curves", "Learning curves over the published ones"),
        ):
            if (run / f"{name}.png").exists():
                parts.append(f"![{caption}](../results/{run.name}/{name}.png)\n")
        files = [path for path in sorted(run.iterdir()) if path.is_file() and path.suffix != ".png"]
        parts.append(
            "Files: " + ", ".join(f"[{path.name}](../results/{run.name}/{path.name})" for path in files) + ".\n"
        )
        settings = json.dumps(json.loads(config.read_text()), indent=2)
        parts.append(f"## Settings\n\n```json\n{settings}\n```\n")
        pages[DOCS / "runs" / f"{run.name}.md"] = "\n".join(parts)
    return pages


def link_runs(text: str, page: str) -> str:
    """Points links at folders of runs, which GitHub shows as lists of files, to the pages of `run_pages`.

    Args:
      text: Markdown.
      page: the page's name relative to docs/, such as "results/README".
    """
    up = "../" * page.count("/")

    def replace(match: re.Match[str]) -> str:
        folder = ((DOCS / page).parent / match[1]).resolve()
        is_run = folder.parent == DOCS / "results" and (folder / "config.json").exists()
        return f"]({up}runs/{folder.name}.md)" if is_run else match[0]

    return re.sub(r"\]\(([\w./-]+)\)", replace, text)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "\\<")


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return "No flags.\n"
    lines = [header, tuple("---" for _ in header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
