"""The machine under a run: which device, which precision, how many threads, and the allocator's thresholds."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Literal

import torch

from audio_cls.core.errors import UserError, choices

__all__ = ["Precision", "choose_device", "choose_precision", "describe_device", "tune_process"]

Precision = Literal["auto", "fp32", "bf16"]


def choose_device(asked: str = "auto") -> torch.device:
    """`auto` is CUDA, else Apple's MPS, else the CPU; a device asked for by name must be there.

    Raises:
        UserError: for a name that is no device or a device that this machine does not have.
    """
    have = ["cpu"]
    if torch.cuda.is_available():
        have += ["cuda"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        have.append("mps")
    if asked == "auto":
        return torch.device("cuda" if "cuda" in have else "mps" if "mps" in have else "cpu")
    if asked not in have:
        raise UserError(f"--device {asked}: this machine has no such device. {choices(asked, ['auto', *have])}")
    return torch.device(asked)


@cache
def _cpu_has_bf16() -> bool:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return any(word in file.read() for word in ("avx512_bf16", "amx_bf16"))
    except OSError:
        return False


def choose_precision(asked: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """`auto` takes bf16 where the device computes it natively (CUDA from Ampere on, CPUs with AVX512-BF16 or AMX), else fp32."""
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and _cpu_has_bf16() else "fp32"


def describe_device(device: torch.device) -> str:
    """Return a readable name: `"NVIDIA H200"`, `"cpu (AVX512, 1 thread)"`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        n = torch.get_num_threads()
        return f"cpu ({torch.backends.cpu.get_cpu_capability()}, {n} thread{'s' if n != 1 else ''})"
    return device.type


def tune_process(threads: int | None = None) -> None:
    """Prepare this process for training: thread count and allocator. Called by commands and workers, never at import.

    Large activations are freed and asked for again at each step; by default glibc gives each back to the kernel and page-faults
    it in again. Keeping them in the heap makes a CPU training step of a small CNN about 1.5 times faster.
    """
    if threads is not None:
        torch.set_num_threads(max(1, threads))
    if sys.platform == "linux" and not os.environ.get("LD_PRELOAD"):
        try:
            libc = ctypes.CDLL("libc.so.6")
            m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4
            libc.mallopt(m_mmap_max, 0)
            libc.mallopt(m_trim_threshold, 2**31 - 1)
            libc.mallopt(m_top_pad, 256 * 2**20)
        except (OSError, AttributeError):  # another C library: slower, not wrong
            pass
