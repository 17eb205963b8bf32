"""docs/lecture.md: each row names code and tests that are there, or says "not yet"."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "lecture.md").read_text()
ROWS = [
    row.strip("| ").split(" | ") for row in TEXT.splitlines() if row.startswith("| ") and not row.startswith("| slide")
]
ROWS = [row for row in ROWS if set(row[0]) != {"-"}]
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
PYTHON = "\n".join(path.read_text() for path in (ROOT / "gormley_vision").rglob("*.py"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_a_row_is_code_that_is_there_or_not_yet(row):
    words = re.findall(r"`([^`]+)`", " ".join(row[1:]))
    assert words or row[1] == "not yet"
    for word in words:
        if re.fullmatch(r"test_\w+", word):
            assert f"def {word}(" in TESTS, word
        elif re.fullmatch(r"[\w/*]+\.py", word):
            assert list(ROOT.glob(word)) or list(ROOT.glob(f"gormley_vision/{word}")), word
        elif re.fullmatch(r"tests/[\w/]+/", word):
            assert (ROOT / word).is_dir(), word
        elif re.fullmatch(r"[A-Z]?[a-z]\w*(\.\w+)?", word):
            assert re.search(rf"(def|class) {word.rpartition('.')[2]}\b|{re.escape(word)}", PYTHON), word
