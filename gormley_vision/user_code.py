"""Loads Python that the user wrote: a config, a sweep, a module. Errors in a file become one message with its line."""

import contextlib
import difflib
import importlib
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from gormley_vision.errors import UserError, listed

_OURS = str(Path(__file__).parent)


def import_module(key: str, path: str, instead: str) -> ModuleType:
    """Import the module that a config key gives by its dotted path, from Python's path or the current folder.

    Raises:
        UserError: there is no such module; `instead` says what to type. Errors inside the module are raised unchanged.
    """
    if (here := str(Path.cwd())) not in sys.path:  # as `python -m` does; a script's own folder comes first
        sys.path.append(here)
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if not error.name or not f"{path}.".startswith(f"{error.name}."):
            raise  # raised by an import in the module
        raise UserError(
            f"{key}={path!r}: there is no module {error.name!r} in {here} or on PYTHONPATH; {instead}"
        ) from None


def load_python(path: Path) -> ModuleType:
    """Run the Python file that --config names.

    Raises:
        UserError: the file does not exist (names the nearest), is not Python, or fails (names the line).
    """
    _refuse_missing(path)
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    code = _compiled(path)  # not by importlib, which may use the bytecode of an older file of the same size and second
    with blamed(path):
        exec(code, module.__dict__)
    return module


@contextlib.contextmanager
def blamed(path: Path) -> Iterator[None]:
    """Turn errors in the user's file into `FILE, line N: what`.

    Errors in our code that the file calls are bugs, and keep their traceback.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, SyntaxError) and error.filename:  # in a module that the file imports
            raise UserError(f"{error.filename}, line {error.lineno}: {error.msg}") from None
        places = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
        in_file = [index for index, (file, _) in enumerate(places) if file == str(path)]
        refused = isinstance(error, UserError)
        if not in_file and not refused:
            raise
        if not refused and any(file.startswith(_OURS) for file, _ in places[in_file[-1] + 1 :]):
            raise
        where = f"{path}, line {places[in_file[-1]][1]}" if in_file else f"{path}"
        what = str(error) if refused else f"{type(error).__name__}: {_in_a_line(str(error))}"
        raise UserError(f"{where}: {what}") from None


def _in_a_line(text: str) -> str:
    if text[:1] == text[-1:] == "'":  # a KeyError quotes its message
        text = text[1:-1].replace("\\n", " ").replace("\\'", "'")
    return " ".join(re.sub(r" Other fields present: .* (?=Did you mean)", " ", text).split())


def _compiled(path: Path):
    """Compile the file."""
    kind = "" if path.suffix == ".py" else "; a config is a Python file, such as configs/vit_mnist.py"
    try:
        return compile(path.read_text(encoding="utf-8"), path, "exec")
    except SyntaxError as error:
        where = f"{path}, line {error.lineno}" if error.lineno else f"{path}"  # a null byte has no line
        raise UserError(f"{where}: {error.msg}{kind}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8 text{kind or '; save it as UTF-8'}") from None
    except ValueError as error:  # a null byte, before Python 3.12
        raise UserError(f"{path}: {error}{kind}") from None


def _refuse_missing(path: Path) -> None:
    if path.is_file():
        return
    folder = path if path.is_dir() else path.parent
    files = sorted(str(file) for file in folder.glob("*.py"))
    what = "is a folder" if path.is_dir() else "no such file"
    if folder != path and (near := difflib.get_close_matches(str(path), files, n=1, cutoff=0.8)):
        instead = f"did you mean {near[0]!r}?"
    else:
        instead = f"one of {listed(files)}" if files else f"there are no .py files in {folder}"
    here = "" if path.is_absolute() else f"; you are in {Path.cwd()}"  # which may be the mistake
    raise UserError(f"--config={path}: {what}; {instead}{here}")
