"""The former place of ``ddcm.fit.data.streaming``, which older configurations name."""

from ddcm.fit.data.streaming import StreamedLatents

__all__ = ["StreamedLatents"]
