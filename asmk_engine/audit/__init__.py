"""Whether a training set shows the classes of test queries, and the training set without them.

The stages follow "On Train-Test Class Overlap and Detection for Image Retrieval" (CVPR 2024), section 3: candidates of
each query, verification, people who look at what is left, and removal of whole classes.
"""

from __future__ import annotations

from asmk_engine.audit.options import AuditOptions
from asmk_engine.audit.overview import AuditReport
from asmk_engine.audit.report import report_again
from asmk_engine.audit.run import AuditInputs, run_audit
from asmk_engine.audit.state import TrainingSource

__all__ = ["AuditInputs", "AuditOptions", "AuditReport", "TrainingSource", "report_again", "run_audit"]
