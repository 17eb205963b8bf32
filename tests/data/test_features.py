"""Features by themselves; what reads them is tested in test_cache.py and test_batches.py."""

import json

import numpy as np
import pytest

from gormley_vision.data.features import (
    Feature,
    check_labels,
    class_label,
    class_names_of,
    from_json,
    label_feature,
    to_json,
)
from gormley_vision.errors import UserError


@pytest.mark.parametrize(
    "changes", [{"kind": "picture"}, {"dtype": "int64"}, {"dtype": "float64"}, {"shape": (4, 0, 1)}]
)
def test_what_is_no_feature_is_refused(changes):
    with pytest.raises(ValueError, match=r"kinds are image, label, .*dtypes bool, uint8"):
        Feature(**{"kind": "image", "shape": (4, 4, 1), "dtype": "uint8"} | changes)


def test_the_class_is_the_label_of_whole_examples(everything):
    assert class_label(everything.features) == "species"
    assert class_names_of(everything.features) == ("a", "b")
    of_boxes = Feature("label", (5,), "int32", ("x", "y"))
    assert class_label({"kinds": of_boxes}) == ""
    assert class_names_of({"kinds": of_boxes, "image": everything.features["photo"]}) == ()
    label = Feature("label", (), "int32", ("p", "q"))
    assert class_label({**everything.features, "label": label}) == "label"


def test_json_brings_features_back(everything):
    assert from_json(json.loads(json.dumps(to_json(everything.features)))) == everything.features


def test_a_label_without_a_name_is_refused():
    features = label_feature(("a", "b"))
    check_labels(np.array([0, 1, 1]), features)
    for labels in ([0, 2], [-1, 1]):
        with pytest.raises(UserError, match="names 2 classes, 0 to 1"):
            check_labels(np.array(labels), features)
