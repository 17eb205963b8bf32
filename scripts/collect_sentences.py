"""Collect sentences for pre-training, without those that will be tested on.

    python scripts/collect_sentences.py --texts trec_train.tsv sst2_train.tsv subj_sentences.txt \\
        --without trec_test.tsv sst2_dev.tsv sst2_test.tsv --out=sentences.txt

Tables give their column `text`, other files a sentence in each line. Sentences are the same if their letters and digits
are, in either case; each is kept once.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from gormley_vision.errors import UserError, reported
from gormley_vision.files import user_path, write_atomically


def main() -> None:
    """Read, leave out, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", required=True, nargs="+", type=user_path, help="tables or files of sentences")
    parser.add_argument("--without", nargs="*", default=[], type=user_path, help="what is not to be pre-trained on")
    parser.add_argument("--column", default="text", help="the tables' column (default: text)")
    parser.add_argument("--out", required=True, type=user_path, help="the file to write")
    options = parser.parse_args()
    tested = {letters_of(sentence) for path in options.without for sentence in sentences(path, options.column)}
    kept: dict[str, str] = {}
    for path in options.texts:
        found = [(letters_of(sentence), sentence) for sentence in sentences(path, options.column)]
        new = {letters: sentence for letters, sentence in found if letters not in tested and letters not in kept}
        kept |= new
        left_out = sum(letters in tested for letters, _ in found)
        print(f"{path.name}: {len(new):,} of {len(found):,} sentences; {left_out:,} are tested on")
    write_atomically(options.out, "".join(f"{sentence}\n" for sentence in kept.values()).encode())
    print(f"wrote {len(kept):,} to {options.out}")


def sentences(path: Path, column: str) -> Iterator[str]:
    """Yield the sentences of a file.

    Raises:
        UserError: it cannot be read, or is a table without this column.
    """
    if path.suffix.lower() in (".tsv", ".csv"):
        from gormley_vision.data.table_source import rows_of

        yield from (text for (text,) in rows_of(path, [column]))
        return
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}; it should be a text file in UTF-8") from None
    yield from (line.strip() for line in lines if line.strip())


def letters_of(sentence: str) -> str:
    """Return letters and digits alone, in lower case."""
    return "".join(character for character in sentence.lower() if character.isalnum())


if __name__ == "__main__":
    with reported():
        main()
