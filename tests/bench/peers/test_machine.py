"""Reading /proc: what a process took, and how much memory it had at most."""

from __future__ import annotations

import os
import time

import machine
import pytest


def test_a_process_whose_name_looks_like_fields_is_read_right():
    stat = "41 (a) 7 (b c) R 1 41 41 0 -1 4194560 100 0 0 0 250 50 900 900 20 0 1 0 5 0 0"
    assert machine._ticks(stat) == 300


def test_cpu_time_is_what_the_process_itself_counts():
    before = time.process_time()
    counted = machine.cpu_s([os.getpid()])
    assert before - 2 / machine.HERTZ <= counted <= time.process_time()  # each of two counts is cut to a tick


def test_the_peak_is_read_in_bytes():
    assert machine._peak("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n") == 2 << 20
    assert machine.peak_bytes([os.getpid()] * 2) == pytest.approx(2 * machine.peak_bytes([os.getpid()]), rel=0.01)


def test_the_ceiling_is_a_speed():
    assert 1e8 < machine.Ceiling(16 << 20, threads=1).measure() < 1e13
