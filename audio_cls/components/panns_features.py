"""The log-mel features that the published weights of PANNs were trained on, as one setting."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field

from audio_cls.components.features import LogMel
from audio_cls.components.normaliser import Normalisation
from audio_cls.core.auto import AUTO
from audio_cls.core.config import ConfigError

__all__ = ["SAMPLE_RATES", "PannsLogMel"]

# n_fft, hop_length, f_max by sample rate
_PUBLISHED = {32000: (1024, 320, 14000.0), 16000: (512, 160, 8000.0), 8000: (256, 80, 4000.0)}

SAMPLE_RATES = tuple(_PUBLISHED)
"""Sample rates in Hz for which weights were published."""


class PannsLogMel(LogMel, kind="panns_log_mel"):
    """Log-mel power in decibels as PANNs take it, (batch, 1, 64, frames): 100 frames a second, bands from 50 Hz, not normalised.

    What is "auto" is what weights were published with at the sample rate of the corpus: 32,000 Hz (CNN6, CNN10, CNN14), 16,000 Hz
    and 8,000 Hz (CNN14). Kong et al., "PANNs: large-scale pretrained audio neural networks for audio pattern recognition", 2020.
    """

    normalise: Normalisation = "none"
    """Subtract mean and divide by standard deviation of the training clips; PANNs normalise in their first layer."""
    f_min: float = Field(default=50.0, ge=0)
    """Lower edge of the lowest band in Hz."""
    mel_scale: Literal["htk", "slaney"] = "slaney"
    """Formula of the mel scale."""
    mel_norm: Literal["none", "slaney"] = "slaney"
    """Whether filters have equal area (slaney) or equal height (none)."""

    def fitted(self, sample_rate: int, clip_seconds: float, top_hz: float | None = None) -> Self:
        """Return a copy with the published `n_fft`, `hop_length` and `f_max` where they are "auto".

        Raises:
            ConfigError: for a sample rate without published weights.
        """
        left = [key for key in ("n_fft", "hop_length", "f_max") if getattr(self, key) == AUTO]
        if not left:
            return self
        if sample_rate not in _PUBLISHED:
            raise ConfigError(
                f"features=panns_log_mel: PANNs were trained on {_listed(SAMPLE_RATES)} Hz, the data have {sample_rate:,}. Prepare "
                f"the corpus with --sample-rate {SAMPLE_RATES[0]}"
            )
        published = dict(zip(("n_fft", "hop_length", "f_max"), _PUBLISHED[sample_rate], strict=True))
        return self.model_copy(update={key: published[key] for key in left})


def _listed(rates: tuple[int, ...]) -> str:
    return f"{', '.join(f'{rate:,}' for rate in rates[:-1])} or {rates[-1]:,}"
