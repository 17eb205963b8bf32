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
from gormley_vision.files import path_flag, read_lines, refuse_unwritable, write_atomically


def main() -> None:
    """Read, leave out, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", required=True, nargs="+", type=path_flag, help="tables or files of sentences")
    parser.add_argument("--without", nargs="*", default=[], type=path_flag, help="what is not to be pre-trained on")
    parser.add_argument("--column", default="text", help="the tables' column (default: text)")
    parser.add_argument("--out", required=True, type=path_flag, help="the file to write")
    options = parser.parse_args()
    refuse_unwritable(options.out)
    tested = {key_of(sentence) for path in options.without for sentence in sentences(path, options.column)}
    kept: dict[str, str] = {}
    for path in options.texts:
        found, before = [(key_of(sentence), sentence) for sentence in sentences(path, options.column)], len(kept)
        for key, sentence in found:
            if key not in tested:
                kept.setdefault(key, sentence)
        left_out = sum(key in tested for key, _ in found)
        print(f"{path.name}: {len(kept) - before:,} of {len(found):,} sentences; {left_out:,} are tested on")
    if not kept:
        raise UserError("no sentences are left: pass others with --texts")
    write_atomically(options.out, "".join(f"{sentence}\n" for sentence in kept.values()).encode())
    print(f"wrote {len(kept):,} to {options.out}")


def sentences(path: Path, column: str) -> Iterator[str]:
    """Yield the sentences of a file.

    Raises:
        UserError: it cannot be read, or is a table without this column.
    """
    if path.suffix.lower() in (".tsv", ".csv"):
        from gormley_vision.data.table_source import rows_of

        found = [text for (text,) in rows_of(path, [column])]
    else:
        found = read_lines(path)
    lines = (" ".join(text.split()) for text in found)  # each becomes a line
    yield from (line for line in lines if line)


def key_of(sentence: str) -> str:
    """Return letters and digits alone, in lower case; of a sentence without any, all of it."""
    return "".join(character for character in sentence.lower() if character.isalnum()) or sentence


if __name__ == "__main__":
    with reported():
        main()
