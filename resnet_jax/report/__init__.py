"""Run records to tables, curves and pages that open offline."""
