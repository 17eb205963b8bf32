"""Tables of texts and classes: by hand, and what is wrong with them."""

import numpy as np
import pytest

from gormley_vision.data.sources import open_source
from gormley_vision.errors import UserError


@pytest.fixture
def opened(tmp_path):
    def open_table(files, path="", **changes):
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        data = {"source": "table", "path": str(tmp_path / path), "split": "train", "context": 5, "tokenizer": "bytes"}
        return open_source(data | {"vocabulary": 300, "text_column": "text", "label_column": "label"} | changes)

    return open_table


TRAIN = 'label\ttext\nbad\tno "\ngood\tyes, it is\nbad\t\n'


def test_rows_are_texts_cut_or_padded_with_their_class(opened, caplog):
    source = opened({"train.tsv": TRAIN, "test.tsv": "text\tlabel\nmaybe\tgood\n"})
    (warned,) = caplog.records
    assert warned.getMessage() == "1 of 3 texts are longer than data.context=5 and are cut; the longest has 10 tokens"
    assert source.class_names == ("bad", "good")
    assert source.labels.tolist() == [0, 1, 0]
    rows = [(e["tokens"][e["valid"]].tobytes(), int(e["label"])) for e in source]
    assert rows == [(b'no "', 0), (b"yes, ", 1), (b"", 0)]
    (test,) = opened({}, split="test")
    assert test["tokens"].tobytes() == b"maybe"
    assert len(opened({}, split="")) == 4
    with pytest.raises(IndexError):
        source[3]


def test_commas_quotes_other_columns_and_names_that_begin_alike(opened):
    files = {"q_train.csv": 'id,sentence,kind\n1,"a, ""b""",x\n2,c,y\n', "q_dev.csv": "id,sentence,kind\n"}
    source = opened(files, "q", text_column="sentence", label_column="kind")
    assert source.texts == ['a, "b"', "c"]
    assert source.class_names == ("x", "y")


def test_blank_lines_are_no_rows_and_texts_may_be_long(opened):
    long = "word " * 60_000
    assert opened({"train.tsv": f"label\ttext\n\na\t{long}\n\n"}).texts == [long]
    assert opened({"a.csv": f'label,text\n\na,"{long}"\n\n'}, "a.csv").texts == [long]


def test_only_line_feeds_end_a_row(opened):
    texts = ["one\u2028two", "three\x85four\x0b", "five"]
    source = opened({"train.tsv": "label\ttext\r\n" + "".join(f"a\t{text}\r\n" for text in texts)})
    assert source.texts == texts


def test_a_tokenizer_is_that_of_the_training_split(opened):
    files = {"train.tsv": "label\ttext\na\tbanana banana\n", "test.tsv": "label\ttext\na\tcherry\n"}
    train, test = (opened(files, split=split, tokenizer="bpe", vocabulary=260) for split in ("train", "test"))
    assert train.features["tokens"] == test.features["tokens"]
    assert len(train[0]["tokens"][train[0]["valid"]]) < len("banana banana")


def test_the_identity_changes_with_what_is_read(opened):
    one = opened({"train.tsv": TRAIN}).identity
    assert opened({}).identity == one
    assert opened({}, context=6).identity != one
    assert opened({"train.tsv": TRAIN + "good\tx\n"}).identity != one


@pytest.mark.parametrize(
    ("files", "path", "changes", "message"),
    [
        ({}, "no", {}, r"no table at .*/no: --config.data.path=FILE.tsv"),
        ({"train.tsv": TRAIN}, "", {"split": "test"}, r"has train, and no 'test'"),
        ({"a.tsv": TRAIN}, "a.tsv", {"split": "test"}, r"is one split, 'train': .*train\[:90%\]"),
        ({"a.txt": TRAIN}, "a.txt", {}, r"is neither .tsv nor .csv"),
        ({"a.tsv": "label\tsentence\n"}, "a.tsv", {}, r"no column text: its header is label, sentence; .*text_column"),
        ({"a.tsv": ""}, "a.tsv", {}, r"its header is empty"),
        ({"a.tsv": "label\ttext\ngood\n"}, "a.tsv", {}, r"a.tsv, line 2: 1 columns, and the header has 2"),
        ({"a.tsv": b"label\ttext\nx\t\xff\n"}, "a.tsv", {}, r"a.tsv is not UTF-8: byte 13"),
        ({"a.tsv": "label\ttext\nx\ta\tb\n"}, "a.tsv", {}, r"line 2: 3 columns, and the header has 2: put no tab"),
        ({"a.tsv": "label\ttext\ttext\nx\ta\tb\n"}, "a.tsv", {}, r"several columns text: rename all but one"),
        ({"a.tsv": "label\ttext\nx\ta\n \tb\n\tc\n"}, "a.tsv", {}, r"2 rows have no label, first row 2"),
        ({"a.tsv": "label\ttext\n"}, "a.tsv", {}, r"has a header and no rows"),
        ({"a.tsv": TRAIN}, "a.tsv", {"text_column": "label"}, r"both the column 'label': --config.data.label_column"),
        ({"a.csv": 'label,text\nx,a\ny,"b\nz,c\n'}, "a.csv", {}, r"a.csv, before line \d: .*close each quote"),
        ({}, ".", {}, r"no table at"),
    ],
)
def test_what_cannot_be_read_is_named(opened, files, path, changes, message):
    with pytest.raises(UserError, match=message):
        opened(files, path, **changes)


def test_paragraphs_of_pythons_documentation(opened):
    train, held = (opened({}, source="python_paragraphs", context=64, split=split) for split in ("train", "validation"))
    assert train.class_names == held.class_names
    assert len(train.class_names) == 6
    assert 8 < len(train) / len(held) < 10
    assert not set(train.texts) & set(held.texts)
    assert np.bincount(train.labels).min() > 30
