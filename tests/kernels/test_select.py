"""A backend is chosen by name, and one that cannot be had says so."""

from __future__ import annotations

import logging

import pytest

from berth_kernels import native as module
from berth_kernels.interface import KernelError
from berth_kernels.select import select


@pytest.fixture
def no_library(monkeypatch):
    def load():
        raise KernelError("no C++ compiler")

    monkeypatch.setattr(module, "_load", load)


@pytest.mark.usefixtures("no_library")
def test_the_reference_needs_nothing():
    assert select("reference").name == "reference"


@pytest.mark.parametrize("name", ["native", "auto"])
def test_native_is_the_best_where_it_can_be_had(name, native):
    del native  # it can, then
    assert select(name).name == "native"


@pytest.mark.usefixtures("no_library")
def test_auto_falls_back_aloud(caplog):
    with caplog.at_level(logging.WARNING):
        assert select("auto").name == "reference"
    assert "falls back to 'reference', several times slower on long histories: no C++ compiler" in caplog.text


@pytest.mark.usefixtures("no_library")
def test_native_asked_for_by_name_is_not_replaced():
    with pytest.raises(KernelError, match=r"no C\+\+ compiler"):
        select("native")


def test_what_is_not_built_is_refused():
    with pytest.raises(KernelError, match="'flashinfer' is not built in this version"):
        select("flashinfer")


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(KernelError, match="'fast': choose one of reference, native, flashinfer, auto"):
        select("fast")
