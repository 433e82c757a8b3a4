"""Reads Python source, and finds each access to the file system by path: what a volume must not see outside of ``fs/``.

It goes by names, as types are not known: a call of ``os.open`` without ``dir_fd``, of a method that ``pathlib.Path`` has
and that looks at the disk, of ``durable``, ``shutil`` and their like. An argument counts as an open descriptor where the
source says so: a parameter that is annotated ``int``, or what a function returned that opens directories.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

_OS_NAMES = """
open stat lstat access chdir chroot chmod chown lchown lchmod link symlink readlink listdir scandir
walk fwalk mkdir makedirs mkfifo mknod remove removedirs rename renames replace rmdir truncate
unlink utime statvfs getxattr setxattr listxattr removexattr pathconf chflags
"""
_OS = set(_OS_NAMES.split())
_OS_PATH_NAMES = """
exists lexists isdir isfile islink ismount getsize getmtime getatime getctime realpath samefile
sameopenfile
"""
_OS_PATH = set(_OS_PATH_NAMES.split())
_FOLLOWS = {"stat", "chown", "utime", "chmod", "link", "access"}
"""Those that follow a link at the last name unless they are told not to."""
_PATH_NAMES = """
iterdir exists is_dir is_file is_symlink is_mount is_socket is_fifo is_block_device is_char_device
stat lstat readlink read_text read_bytes write_text write_bytes mkdir rmdir unlink rename resolve
glob rglob chmod lchmod touch symlink_to hardlink_to link_to samefile open expanduser
"""
_PATH = set(_PATH_NAMES.split())
_MODULES = {"shutil", "glob", "tempfile", "sqlite3", "fileinput", "zipfile", "tarfile", "dbm", "shelve", "mmap"}
_OF_MODULES = {
    "connect",
    "NamedTemporaryFile",
    "TemporaryDirectory",
    "TemporaryFile",
    "mkdtemp",
    "mkstemp",
    "gettempdir",
}
_DURABLE_ON_DESCRIPTORS = {"json_bytes", "sync_file_system_of"}
_MAKES_DESCRIPTORS = {
    *(
        "open",
        "dup",
        "fileno",
        "opened",
        "_opened",
        "_unsealed",
        "open_file",
        "open_file_in",
        "open_changeable",
        "open_directory",
    ),
    *("directory", "find_directory", "create_unnamed_file", "create_file", "_directory", "_new_directory"),
}


@dataclass(frozen=True)
class Access:
    """An access by path, and where it is."""

    function: str
    """The name within the module, or "" at its top."""
    line: int
    call: str

    def __str__(self) -> str:
        return f"line {self.line}, in {self.function or 'the module'}: {self.call}"


def accesses(source: str) -> list[Access]:
    """Each access by path in the source of a module."""
    tree = ast.parse(source)
    return sorted(_Reader(tree).read(tree, "", frozenset()), key=lambda access: access.line)


class _Reader:
    def __init__(self, tree: ast.Module) -> None:
        self._ours: set[str] = set()
        """Names of modules of ours: what they do is looked at in their own source."""
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("turku"):
                self._ours.update(alias.asname or alias.name for alias in node.names)

    def read(self, node: ast.AST, function: str, descriptors: frozenset[str]) -> Iterator[Access]:
        for child in ast.iter_child_nodes(node):
            inner, known = function, descriptors
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{function}.{child.name}".lstrip(".")
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                known = descriptors | _descriptors(child)
            for call in self._found(child, node, known):
                yield Access(inner, getattr(child, "lineno", 0), call)
            yield from self.read(child, inner, known)

    def _found(self, node: ast.AST, parent: ast.AST, descriptors: frozenset[str]) -> Iterator[str]:
        if isinstance(node, ast.ImportFrom) and node.module in ("os", "os.path", "shutil", "io", *_MODULES):
            yield f"from {node.module} import {', '.join(alias.name for alias in node.names)}"
        elif isinstance(node, ast.Import) and any(alias.name == "os" and alias.asname for alias in node.names):
            yield "import os under another name"
        elif isinstance(node, ast.Call):
            if self._is_access(node, descriptors):
                yield ast.unparse(node)
        elif isinstance(node, ast.Attribute) and not (isinstance(parent, ast.Call) and parent.func is node):
            # Handed on, as in map(os.unlink, paths).
            owner = ast.unparse(node.value)
            is_function = (owner == "os" and node.attr in _OS) or (owner == "os.path" and node.attr in _OS_PATH)
            if is_function or (owner == "Path" and node.attr in _PATH):
                yield ast.unparse(node)

    def _is_access(self, call: ast.Call, descriptors: frozenset[str]) -> bool:
        function = call.func
        if isinstance(function, ast.Name):
            return function.id == "open"
        if not isinstance(function, ast.Attribute):
            return False
        owner, name = ast.unparse(function.value), function.attr
        if owner == "os":
            return name in _OS and not self._is_by_descriptor(call, name, descriptors)
        if owner == "os.path":
            return name in _OS_PATH
        if owner in ("shutil", "glob"):
            return True
        if owner in _MODULES:
            return name in _OF_MODULES
        if owner == "durable":
            return not (name.endswith("_in") or name in _DURABLE_ON_DESCRIPTORS)
        if owner == "lock":
            return not (name in ("exclusive_in", "exclusive_descriptor") or _is_lock_directory(call))
        if owner in self._ours or owner == "io":
            return owner == "io" and name == "open"
        if name == "replace":
            # A string's has two arguments, a moment's has names.
            return len(call.args) == 1 and not call.keywords
        return name in _PATH

    def _is_by_descriptor(self, call: ast.Call, name: str, descriptors: frozenset[str]) -> bool:
        named = {keyword.arg: keyword.value for keyword in call.keywords}
        if {"dir_fd", "src_dir_fd"} & named.keys():
            follows = name in _FOLLOWS and ast.unparse(named.get("follow_symlinks", ast.Constant(True))) != "False"
            return not follows and ("src_dir_fd" not in named or "dst_dir_fd" in named)
        return bool(call.args) and _is_descriptor(call.args[0], descriptors)


def _is_lock_directory(call: ast.Call) -> bool:
    return bool(call.args) and isinstance(call.args[0], ast.Attribute) and call.args[0].attr == "lock_dir"


def _is_descriptor(node: ast.expr, descriptors: frozenset[str]) -> bool:
    if isinstance(node, ast.Name):
        return node.id in descriptors
    return isinstance(node, ast.Call) and _called(node) in _MAKES_DESCRIPTORS


def _called(node: ast.expr) -> str:
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)


def _descriptors(function: ast.FunctionDef | ast.AsyncFunctionDef) -> frozenset[str]:
    """The names in a function that stand for open files or directories, and for nothing else."""
    parameters = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    found = {each.arg for each in parameters if each.annotation is not None and ast.unparse(each.annotation) == "int"}
    others: set[str] = set()
    for node in ast.walk(function):
        pairs: list[tuple[ast.expr, ast.expr]] = []
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs += zip(target.elts, node.value.elts, strict=False)
                else:
                    pairs.append((target, node.value))
        elif isinstance(node, ast.With):
            pairs += [(item.optional_vars, item.context_expr) for item in node.items if item.optional_vars is not None]
        for target, value in pairs:
            if isinstance(target, ast.Name):
                is_none_yet = isinstance(value, ast.UnaryOp | ast.Constant)
                (found if _called(value) in _MAKES_DESCRIPTORS or is_none_yet else others).add(target.id)
    return frozenset(found - others)
