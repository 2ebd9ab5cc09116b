"""The layout of the repository: few files at the top level, imports that run one way, no re-exports, lines that fit."""
import ast

from repository import ROOT, tracked

SCRIPTS = {"prepare", "verify", "train", "scst", "decode", "evaluate", "cross_section"}
FOLDERS = {"physics", "dataset", "runtime", "bench", "docs"}  # folders with code; config/ has settings


def module_name(path):
    """"physics/form.py" -> "physics.form", "physics/__init__.py" -> "physics"."""
    return path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def read_program():
    """{module: syntax tree} of all files but tests and settings."""
    names = [name for name in tracked("*.py") if "/" not in name or name.split("/")[0] in FOLDERS]
    return {module_name(name): ast.parse((ROOT / name).read_text(encoding="utf-8")) for name in names}


def imports_of(tree, ours):
    """What a file imports, inside functions too: {(module, imported name or None)}.

    `from package import module` counts as (package.module, None) if that is a file of ours.
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(alias.name, None) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add((inner, None) if inner in ours else (node.module, alias.name))
    return found


def defined_names(statements):
    """Names that a module defines at its top level: functions, classes and assigned names, but not imported ones."""
    names = set()
    for node in statements:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.If, ast.Try, ast.With, ast.For)):
            names |= defined_names(ast.iter_child_nodes(node))
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            names |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return names


def handed_on(program):
    """Every `from source import name` where the source is ours and does not define the name itself."""
    return sorted(f"{module}: from {source} import {name}"
                  for module, tree in program.items() for source, name in imports_of(tree, program)
                  if source in program and name is not None and name not in defined_names(program[source].body))


def import_graph(program):
    """{module: the modules of ours that it imports}."""
    return {module: {name for name, _ in imports_of(tree, program)} & set(program) for module, tree in program.items()}


def reachable(graph, start):
    """The modules that `start` imports, directly or through others."""
    found, waiting = set(), [start]
    while waiting:
        new = graph[waiting.pop()] - found
        found |= new
        waiting += new
    return found


PROGRAM = read_program()
GRAPH = import_graph(PROGRAM)


def test_at_most_18_files_at_the_top_level():
    top = {module for module in PROGRAM if "." not in module and module not in FOLDERS}
    assert len(top) <= 18, sorted(top)
    assert SCRIPTS <= top


def test_no_part_and_no_file_of_a_folder_imports_a_script():
    """The benchmarks may: they measure the scripts."""
    wrong = {module: names & SCRIPTS for module, names in GRAPH.items()
             if module not in SCRIPTS and not module.startswith("bench.") and names & SCRIPTS}
    assert not wrong


def test_imports_have_no_circle():
    assert not [module for module in PROGRAM if module in reachable(GRAPH, module)]


def test_physics_needs_neither_torch_nor_a_file_of_the_top_level():
    for start in (module for module in PROGRAM if module.startswith("physics.")):
        for module in {start} | reachable(GRAPH, start):
            assert module.startswith(("physics", "runtime")), f"{start} imports {module}"
            packages = {name.split(".")[0] for name, _ in imports_of(PROGRAM[module], PROGRAM)}
            assert "torch" not in packages, f"{start} imports torch through {module}"


def test_a_name_is_imported_from_the_file_that_defines_it():
    assert handed_on(PROGRAM) == []


def test_the_checks_see_what_they_look_for():
    program = {"a": "from b import g, f\nfrom c import X",
               "b": "def f():\n    from folder import c\n\nif f():\n    from c import g",
               "c": "X: int = 1\ng, h = 1, 2",
               "folder.c": "import a"}
    program = {module: ast.parse(text) for module, text in program.items()}
    assert handed_on(program) == ["a: from b import g"]
    graph = import_graph(program)
    assert graph == {"a": {"b", "c"}, "b": {"folder.c", "c"}, "folder.c": {"a"}, "c": set()}
    assert [module for module in program if module in reachable(graph, module)] == ["a", "b", "folder.c"]


def test_lines_have_at_most_120_characters():
    long = []
    for name in tracked("*.py"):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        long += [f"{name}:{number}" for number, line in enumerate(lines, 1) if len(line) > 120]
    assert not long
