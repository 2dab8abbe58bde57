"""The verbs on tensors."""

from ddcm.pipeline.pipeline import DDCMPipeline

__all__ = ["DDCMPipeline"]
