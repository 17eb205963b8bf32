"""The table of config keys: every number has a range, and a key that nothing reads is refused with what to type."""

import pytest

from gormley_vision import config as cfg
from gormley_vision import task_modules
from gormley_vision.errors import UserError

TABLES = {task: cfg.fields_of({"task": task}) for task in task_modules.names()}  # what lies in the folder
KEYS = [(task, key) for task, fields in TABLES.items() for key in fields]
CONDITIONAL = [(task, key) for task, key in KEYS if TABLES[task][key].when]


def another(field):
    """A value of the field's that is not its default."""
    if field.is_duration:
        return "7 steps"
    if field.choices:
        return next(choice for choice in field.choices if choice != field.default)
    if isinstance(field.default, bool):
        return not field.default
    if isinstance(field.default, str):
        return "x"
    more = 1 if isinstance(field.default, int) else 0.5
    return field.at_least if field.default != field.at_least else field.at_least + more


def switched_on(field):
    """A value of the field's that is not '', 'none' or 0."""
    return field.default if cfg._is_on(field.default) else another(field)


@pytest.mark.parametrize(("task", "key"), KEYS)
def test_every_number_has_a_range_and_its_default_is_in_it(task, key):
    field = TABLES[task][key]
    assert cfg.fault_of(field.default, field) == ""
    if isinstance(field.default, bool | str) or field.choices:
        return
    assert field.at_least is not None
    assert (field.at_most is None) != (field.below is None)
    for value in (float("inf"), float("-inf"), float("nan"), field.at_least - 1, (field.at_most or field.below) + 1):
        assert cfg.fault_of(value, field)


@pytest.mark.parametrize(("task", "key"), CONDITIONAL)
def test_a_key_is_refused_where_nothing_reads_it_and_accepted_where_something_does(task, key):
    field = TABLES[task][key]
    for other, values in field.when.items():
        config, table = cfg.default_config(task), cfg.fields_of({"task": task})
        flat = {name: (allowed or (switched_on(table[name]),))[0] for name, allowed in _readers(table, key).items()}
        config.update_from_flattened_dict(flat | {key: another(field)})
        cfg.validate_fields(config)
        config.update_from_flattened_dict({other: _not_among(table[other], values)})
        with pytest.raises(UserError, match=f"{key}=.*nothing reads it if .*leave it at"):
            cfg.validate_fields(config)


def _readers(table, key):
    """What must hold for a key to be read, and for that in its turn."""
    found = dict(table[key].when)
    for other in table[key].when:
        found |= _readers(table, other)
    return found


def _not_among(field, values):
    if values:
        return next(
            choice
            for choice in field.choices or (True, False, "other")
            if type(choice) is type(field.default) and choice not in values
        )
    return (
        "0 images"
        if field.is_duration
        else {str: "none" if "none" in field.choices else ""}.get(type(field.default), 0)
    )


def test_only_what_the_command_line_made_idle_goes_back():
    config = cfg.default_config("gan")
    config.data.update(source="folder", name="cifar10", path="photos")
    assert cfg.reset_unread(config, {"data.source"}) == [
        "data.name='cifar10' is left out: nothing reads it if data.source='folder'"
    ]
    config.data.name = "cifar10"
    assert cfg.reset_unread(config, {"data.source", "data.name"}) == []  # typed in vain: `validate` refuses it
    with pytest.raises(UserError, match=r"data\.name='cifar10': nothing reads it.*--config\.data\.source=tfds"):
        cfg.validate(config)


def test_a_module_may_stand_for_a_source_and_reads_what_it_likes():
    config = cfg.default_config("gan")
    config.data.update(source="mine.birds", name="x", path="photos")
    cfg.validate(config)
    config.data.source = "birds"
    with pytest.raises(UserError, match=r"data.source='birds': one of 'tfds', "):
        cfg.validate(config)
    config.data.update(source="mine.birds", crop="center.x")
    with pytest.raises(UserError, match=r"data.crop='center.x'"):
        cfg.validate(config)


def test_every_smoke_config_of_a_task_is_valid():
    for task in TABLES:
        cfg.validate(cfg.shrink(cfg.default_config(task)))
