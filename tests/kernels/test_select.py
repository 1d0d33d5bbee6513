"""A backend is chosen by name, and one that cannot be had says so."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch

from berth_kernels import gpu
from berth_kernels import native as module
from berth_kernels import select as module_of_select
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


def test_flashinfer_names_all_that_is_missing(monkeypatch):
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu, "find_spec", lambda _: None)
    with pytest.raises(KernelError, match=r"needs an NVIDIA GPU .* and the package triton .* and .* flashinfer-python"):
        select("flashinfer")


def test_flashinfer_that_is_there_and_broken_says_why(monkeypatch):
    def broken(name):
        raise ImportError(f"no {name} for this Python")

    monkeypatch.setattr(module_of_select, "missing", list)
    monkeypatch.setattr(module_of_select, "import_module", broken)
    with pytest.raises(KernelError, match="installed and cannot be loaded: no flashinfer for this Python"):
        select("flashinfer")


def test_flashinfer_is_had_where_nothing_is_missing(monkeypatch):
    made = []
    modules = {"flashinfer": "the package", "berth_kernels.flashinfer_backend": SimpleNamespace()}
    modules["berth_kernels.flashinfer_backend"].FlashInferKernels = lambda *given: made.append(given)
    monkeypatch.setattr(module_of_select, "missing", list)
    monkeypatch.setattr(module_of_select, "import_module", modules.__getitem__)
    select("flashinfer")
    assert made == [("the package", torch.device("cuda"))]


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(KernelError, match="'fast': choose one of reference, native, flashinfer, auto"):
        select("fast")
