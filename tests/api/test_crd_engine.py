"""A fleet's engine settings are the worker's flags: the same names, the same choices, the same bounds."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from berth_api.crd import EngineSettings, FleetSpec
from berth_api.crd.structural import structural
from berth_worker.flags import parser
from berth_worker.settings import CacheSettings

FLAGS = {action.option_strings[0]: action for action in parser()._actions if action.option_strings}


def _flag(name: str) -> argparse.Action:
    return FLAGS["--" + name.replace("_", "-")]


@pytest.mark.parametrize("name", EngineSettings.model_fields)
def test_each_setting_is_a_flag_with_the_same_choices(name: str) -> None:
    schema: dict[str, Any] = structural(EngineSettings)["properties"]
    alias = EngineSettings.model_fields[name].alias
    assert alias is not None
    assert schema[alias].get("enum") == _flag(name).choices


@pytest.mark.parametrize("name", [*EngineSettings.model_fields, "slots"])
def test_each_bound_is_the_flags_own(name: str) -> None:
    where = FleetSpec if name == "slots" else EngineSettings
    schema: dict[str, Any] = structural(where)["properties"][where.model_fields[name].alias or name]
    if schema["type"] != "integer":
        return
    parse = _flag(name).type
    assert callable(parse)
    for bound in (schema["minimum"], schema["maximum"]):
        assert parse(str(bound)) == bound
    for beyond in (schema["minimum"] - 1, schema["maximum"] + 1):
        with pytest.raises(argparse.ArgumentTypeError):
            parse(str(beyond))


def test_the_rule_on_the_pools_size_knows_the_workers_page() -> None:
    rules = structural(EngineSettings)["x-kubernetes-validations"]
    assert f": {CacheSettings().page_size})" in rules[0]["rule"]
